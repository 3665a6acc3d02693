"""Divides the packs of a step among several devices, so that each has about the same number of tokens to compute.

Every device makes the same division from the same packs, so none has to be told which part is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch

from journeyman.training.batches import Pack


@dataclass(frozen=True)
class PlacedRow:
    """A row of a pack.

    Attributes:
        pack, segment: which segment of which pack has its labels.
        prefix: the segment that it continues, or -1.
        tokens, shared: of these segments.
    """

    pack: int
    segment: int
    prefix: int
    tokens: int
    shared: int


def divide_packs(packs: Sequence[Pack], devices: int) -> list[list[int]]:
    """For each device, the numbers of its packs, in ascending order.

    The largest pack goes first, each to the device with the fewest tokens so far (Graham, 1969: at most 4/3 of the
    shortest possible time).
    """
    shares: list[list[int]] = [[] for _ in range(devices)]
    loads = [0] * devices
    for number in sorted(range(len(packs)), key=lambda n: (-len(packs[n].ids_T), n)):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += len(packs[number].ids_T)
    return [sorted(share) for share in shares]


def divide_rows(packs: Sequence[Pack], devices: int) -> list[list[list[PlacedRow]]]:
    """For each device, the rows of new packs (`laid_out`), none larger than the largest of `packs`.

    A beginning that several rows share is computed by every device that has one of them. So such rows are placed
    first, and stay together until their device has more than its part by what another copy would add to all parts.
    Single rows then fill the gaps, the longest first.
    """
    most = max((len(pack.ids_T) for pack in packs), default=0)
    target = sum(len(pack.ids_T) for pack in packs) / devices
    rows = [row for number, pack in enumerate(packs) for row in _rows(pack, number)]
    shares: list[list[PlacedRow]] = [[] for _ in range(devices)]
    loads, begun = [0] * devices, [set[tuple[int, int]]() for _ in range(devices)]

    def load_with(device: int, row: PlacedRow) -> int:
        there = row.prefix < 0 or (row.pack, row.prefix) in begun[device]
        return loads[device] + row.tokens + (0 if there else row.shared)

    for row in sorted(rows, key=lambda one: (-one.shared, one.pack, one.prefix, -one.tokens, one.segment)):
        near = [
            device for device in range(devices)
            if (row.pack, row.prefix) in begun[device] and load_with(device, row) <= target + row.shared / devices
        ]  # fmt: skip
        chosen = min(near or range(devices), key=lambda device: (load_with(device, row), device))
        loads[chosen] = load_with(chosen, row)
        shares[chosen].append(row)
        if row.prefix >= 0:
            begun[chosen].add((row.pack, row.prefix))
    return [_parts(share, most) for share in shares]


def longest_row(packs: Sequence[Pack]) -> int:
    """Tokens of the longest row."""
    return max(row.tokens + row.shared for number, pack in enumerate(packs) for row in _rows(pack, number))


def smaller_packs(pack: Pack, most: int) -> list[Pack]:
    """Packs with the same rows of at most `most` tokens each, or of one row if that is longer.

    A pack that is small enough is returned as it is.
    """
    if len(pack.ids_T) <= most:
        return [pack]
    return [laid_out([pack], part) for part in _parts(_rows(pack, 0), most)]


def _rows(pack: Pack, number: int) -> list[PlacedRow]:
    """The rows of a pack; a segment that others continue is no row."""
    continued = set(pack.prefixes)
    return [
        PlacedRow(number, segment, prefix, length, pack.lengths[prefix] if prefix >= 0 else 0)
        for segment, (length, prefix) in enumerate(zip(pack.lengths, pack.prefixes, strict=True))
        if segment not in continued
    ]


def _parts(rows: Sequence[PlacedRow], most: int) -> list[list[PlacedRow]]:
    """Rows for one pack each. Rows with the same beginning stay together as long as they fit."""
    parts: list[list[PlacedRow]] = []
    room = 0
    order = sorted(rows, key=lambda row: (row.pack, row.prefix, row.segment))
    for _, family in groupby(order, key=lambda row: (row.pack, row.prefix)):
        begun = False
        for row in family:
            needed = row.tokens + (0 if begun else row.shared)
            if not parts or needed > room:
                parts.append([])
                room, needed = most, row.tokens + row.shared
            parts[-1].append(row)
            room -= needed
            begun = True
    return parts


def laid_out(packs: Sequence[Pack], rows: Sequence[PlacedRow]) -> Pack:
    """A pack of some rows of others, in the order that models.attention.Packing needs."""
    whole = sorted({(row.pack, row.prefix if row.prefix >= 0 else row.segment) for row in rows})
    continued = sorted((row for row in rows if row.prefix >= 0), key=lambda row: (row.pack, row.prefix, row.segment))
    place_of = {place: number for number, place in enumerate(whole)}
    places = whole + [(row.pack, row.segment) for row in continued]
    bounds = {number: _bounds(packs[number]) for number, _ in places}
    ids, sources, labels, weights = [], [], [], []
    begin = 0
    for number, segment in places:
        pack, (starts, firsts) = packs[number], bounds[number]
        start, of_labels = starts[segment], slice(firsts[segment], firsts[segment + 1])
        ids.append(pack.ids_T[start : starts[segment + 1]])
        sources.append(pack.source_L[of_labels] + (begin - start))
        labels.append(pack.labels_L[of_labels])
        weights.append(pack.weights_L[of_labels])
        begin += pack.lengths[segment]
    lengths = [packs[number].lengths[segment] for number, segment in places]
    prefixes = [-1] * len(whole) + [place_of[row.pack, row.prefix] for row in continued]
    row_tokens = sum(row.tokens + row.shared for row in rows)
    return Pack(
        torch.cat(ids), lengths, prefixes, torch.cat(sources), torch.cat(labels), torch.cat(weights), row_tokens
    )


def _bounds(pack: Pack) -> tuple[list[int], list[int]]:
    """The first token of each segment, and its first label, and those after the last segment."""
    starts = list(accumulate(pack.lengths, initial=0))
    return starts, torch.searchsorted(pack.source_L, torch.tensor(starts)).tolist()
