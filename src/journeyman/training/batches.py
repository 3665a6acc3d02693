"""Which rows an optimizer step takes, and how they are packed.

The order is a function of seed and epoch alone, so a resumed run needs no reader state. Packing does not
change the result: segments do not see each other, and the loss is averaged over the labels of the step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.rendering.renderer import Rendered


@dataclass(frozen=True)
class Pack:
    """Rows laid end to end.

    Attributes:
        ids_T: token ids.
        lengths: tokens of each row; they add up to T.
        source_L: positions whose hidden state predicts a label.
        labels_L: the labels: every answer token, and the terminator of every answer that was not cut.
        weights_L: of each label in the loss.
    """

    ids_T: Tensor
    lengths: list[int]
    source_L: Tensor
    labels_L: Tensor
    weights_L: Tensor


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    return -(-rows // rows_per_step)


def rows_of_step(step: int, rows: int, rows_per_step: int, seed: int) -> list[int]:
    """Row numbers of optimizer step `step`, counted from 0 over all epochs."""
    epoch, place = divmod(step, steps_per_epoch(rows, rows_per_step))
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[place * rows_per_step : (place + 1) * rows_per_step]


def pack(rows: Sequence[Rendered], pack_tokens: int) -> list[Pack]:
    """Packs rows, longest first so that neighbours have similar lengths, into at most `pack_tokens` each.

    A row longer than the limit gets a pack of its own.
    """
    packs: list[list[Rendered]] = []
    room = 0
    for row in sorted(rows, key=lambda r: -len(r.ids)):
        if not packs or len(row.ids) > room:
            packs.append([])
            room = pack_tokens
        packs[-1].append(row)
        room -= len(row.ids)
    return [_lay_out(group) for group in packs]


def _lay_out(rows: Sequence[Rendered]) -> Pack:
    ids: list[int] = []
    source: list[int] = []
    weights: list[float] = []
    for row in rows:
        source += range(len(ids) + row.prompt_tokens - 1, len(ids) + len(row.ids) - 1)
        weights += [row.weight] * row.trained_tokens
        ids += row.ids
    ids_T, source_L = torch.tensor(ids), torch.tensor(source)
    return Pack(ids_T, [len(row.ids) for row in rows], source_L, ids_T[source_L + 1], torch.tensor(weights))
