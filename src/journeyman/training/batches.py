"""Selects the rows of an optimizer step and packs them.

The order depends only on seed and epoch, so a resumed run needs no reader state. Packing changes nothing except the
order of sums: segments do not attend to each other, the loss is averaged over the labels of the step, and the common
beginning of several prompts is computed once, because it is the same for all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.rendering.renderer import Rendered

PACK_TOKENS = 2048
_LEAST_SHARED = 16
"""Tokens; a shorter common beginning is not worth its own segment."""


@dataclass(frozen=True)
class Pack:
    """Concatenated segments: first common beginnings and whole rows, then the continuations of common beginnings.

    Attributes:
        ids_T: token ids.
        lengths: tokens of each segment; they add up to T.
        prefixes: for each segment, the number of the segment that it continues, or -1.
        source_L: positions whose hidden state predicts a label.
        labels_L: the labels: every answer token, and the terminator of every answer that is not cut off.
        weights_L: the weight of each label in the loss.
        row_tokens: tokens of all rows; more than T if rows share a beginning.
    """

    ids_T: Tensor
    lengths: list[int]
    prefixes: list[int]
    source_L: Tensor
    labels_L: Tensor
    weights_L: Tensor
    row_tokens: int

    @property
    def label_weight(self) -> float:
        """The sum of the weights of all labels."""
        return self.weights_L.sum().item()


@dataclass(frozen=True)
class _Family:
    """Rows whose prompts share their first `shared` tokens."""

    rows: Sequence[Rendered]
    shared: int

    @property
    def tokens(self) -> int:
        """Computed tokens, counting the common beginning once."""
        return self.shared + sum(len(row.ids) - self.shared for row in self.rows)


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    return -(-rows // rows_per_step)


def rows_of_step(step: int, rows: int, rows_per_step: int, seed: int) -> list[int]:
    """The row numbers of optimizer step `step`, which is counted from 0 over all epochs."""
    epoch, place = divmod(step, steps_per_epoch(rows, rows_per_step))
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[place * rows_per_step : (place + 1) * rows_per_step]


class PacksAhead:
    """The packs of each step; those of the next are made by a thread while a step is computed."""

    def __init__(self, make: Callable[[int], list[Pack]]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="packs")
        self._next: tuple[int, Future[list[Pack]]] | None = None

    def of_step(self, step: int) -> list[Pack]:
        made = self._next[1].result() if self._next is not None and self._next[0] == step else self._make(step)
        self._next = step + 1, self._thread.submit(self._make, step + 1)
        return made

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def pack(rows: Sequence[Rendered], pack_tokens: int) -> list[Pack]:
    """Makes packs of at most `pack_tokens` computed tokens; a longer row gets its own pack.

    Rows that share a beginning are in the same pack if they fit. The longest come first, so that neighbors have
    similar lengths.
    """
    parts = [part for family in _families(rows) for part in _parts_that_fit(family, pack_tokens)]
    packs: list[list[_Family]] = []
    room = 0
    for part in sorted(parts, key=lambda p: (-len(p.rows[0].ids), -p.tokens)):
        if not packs or part.tokens > room:
            packs.append([])
            room = pack_tokens
        packs[-1].append(part)
        room -= part.tokens
    return [_lay_out(families) for families in packs]


def group_size(packs: Sequence[Pack], group_tokens: int) -> int:
    """How many of the first packs the engine gets at once: as many as fit in group_tokens, but at least one."""
    size, room = 1, group_tokens - len(packs[0].ids_T)
    while size < len(packs) and len(packs[size].ids_T) <= room:
        room -= len(packs[size].ids_T)
        size += 1
    return size


def _families(rows: Sequence[Rendered]) -> list[_Family]:
    """Groups rows by common beginnings: in token order, a row joins the last family as long as that saves more."""
    families: list[_Family] = []
    for row in sorted(rows, key=lambda r: r.ids):
        if families:
            last = families[-1]
            shared = _common(last.rows[-1], row)
            now = last.shared if len(last.rows) > 1 else shared
            with_row = min(now, shared)
            if with_row >= _LEAST_SHARED and with_row * len(last.rows) >= now * (len(last.rows) - 1):
                families[-1] = _Family([*last.rows, row], with_row)
                continue
        families.append(_Family([row], 0))
    return families


def _common(one: Rendered, other: Rendered) -> int:
    """The number of common leading tokens of two prompts, without the last, which predicts the first label."""
    most = min(one.prompt_tokens, other.prompt_tokens) - 1
    return next((place for place in range(most) if one.ids[place] != other.ids[place]), most)


def _parts_that_fit(family: _Family, pack_tokens: int) -> list[_Family]:
    """Splits a family, longest row first, into parts that fit in a pack."""
    parts: list[list[Rendered]] = []
    room = 0
    for row in sorted(family.rows, key=lambda r: -len(r.ids)):
        if not parts or len(row.ids) - family.shared > room:
            parts.append([])
            room = pack_tokens - family.shared
        parts[-1].append(row)
        room -= len(row.ids) - family.shared
    return [_Family(rows, family.shared if len(rows) > 1 else 0) for rows in parts]


def _lay_out(families: Sequence[_Family]) -> Pack:
    ids: list[int] = []
    lengths: list[int] = []
    prefixes: list[int] = []
    source: list[int] = []
    labels: list[int] = []
    weights: list[float] = []

    def lay(tokens: Sequence[int], prefix: int) -> None:
        ids.extend(tokens)
        lengths.append(len(tokens))
        prefixes.append(prefix)

    def label(row: Rendered, before: int) -> None:
        """Adds the labels of the row just laid out, of which the first `before` tokens are elsewhere."""
        start = len(ids) - len(row.ids)
        assert row.prompt_tokens > before, "the position before the first label must be the row's own"
        source.extend(range(start + row.prompt_tokens - 1, len(ids) - 1))
        labels.extend(row.ids[row.prompt_tokens :])
        weights.extend([row.weight] * row.trained_tokens)

    begins = {}
    for family in families:
        if family.shared:
            begins[id(family)] = len(lengths)
            lay(family.rows[0].ids[: family.shared], -1)
        else:
            for row in family.rows:
                lay(row.ids, -1)
                label(row, 0)
    for family in families:
        if family.shared:
            for row in family.rows:
                lay(row.ids[family.shared :], begins[id(family)])
                label(row, family.shared)
    row_tokens = sum(len(row.ids) for family in families for row in family.rows)
    return Pack(
        torch.tensor(ids),
        lengths,
        prefixes,
        torch.tensor(source),
        torch.tensor(labels),
        torch.tensor(weights),
        row_tokens,
    )
