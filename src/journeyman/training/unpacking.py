"""Takes packs apart into rows, for models that know only whole rows.

A recurrent layer has no way to keep the segments of a pack apart, and few implementations of attention have one. So
each row is computed alone, including the beginning that it shares with others. The loss is the same sum over the same
labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.training.batches import Pack


@dataclass(frozen=True)
class Row:
    """One row of a pack; the attributes are those of a Pack that has no other row."""

    ids_T: Tensor
    source_L: Tensor
    labels_L: Tensor
    weights_L: Tensor


def rows_of(pack: Pack) -> list[Row]:
    """The rows of a pack, in the order of their segments; a segment without labels is only the beginning of others."""
    rows, begins = [], [0]
    for length in pack.lengths:
        begins.append(begins[-1] + length)
    for segment, (begin, length) in enumerate(zip(begins, pack.lengths, strict=False)):
        mine = (pack.source_L >= begin) & (pack.source_L < begin + length)
        if mine.any():
            ids_T = _whole(pack, segment, begins)
            source_L = pack.source_L[mine] - begin + len(ids_T) - length
            rows.append(Row(ids_T, source_L, pack.labels_L[mine], pack.weights_L[mine]))
    assert sum(len(row.ids_T) for row in rows) == pack.row_tokens, "a row was lost or taken twice"
    return rows


def _whole(pack: Pack, segment: int, begins: list[int]) -> Tensor:
    """The tokens of a segment, after those of the segment that it continues."""
    own_T = pack.ids_T[begins[segment] : begins[segment] + pack.lengths[segment]]
    before = pack.prefixes[segment]
    return own_T if before < 0 else torch.cat([_whole(pack, before, begins), own_T])
