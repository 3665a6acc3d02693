"""Joins near-duplicates: bands propose pairs of rows, workers compare them, and this process keeps the clusters.

The clusters are those of all proposed pairs that reach the threshold, so neither the order in which pairs are compared
nor the number of workers changes them. A pair that is in one cluster already need not be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from journeyman.curation.clusters import Clusters
from journeyman.curation.columns import U4, U8, Flags, Indices, mapped_array, parts_for
from journeyman.curation.comparing import compared, hear_stop
from journeyman.curation.duplicates import Words
from journeyman.curation.similar_pairs import Pairs, pairs_with_words, similar_pairs
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter, SilentReporter

_LOOK_BACK = 3
_STEP = 1 << 20
_LOOK = 1 << 14
"""Proposed pairs that are looked up at a time: what is joined meanwhile is skipped at the next look."""
_MOST_PAIRS, _MOST_WORDS = 4096, 1 << 20
"""Of a batch."""
_REMEMBERED_BITS = 22
"""2²² pairs, in 32 MB; fewer if there are fewer rows."""


def join_near(
    clusters: Clusters,
    distinct: Flags,
    bands: Sequence[Path],
    words: Words,
    threshold: float,
    own: U8 | None = None,
    executor: Executor = HERE,
    reporter: Reporter | None = None,
) -> None:
    """Links rows whose trigram similarity reaches `threshold`.

    Args:
        distinct: the rows to compare, which are different texts.
        bands: a file with a hash for each row; rows that have the same one are compared with their next neighbours.
        own: hash of the prompt if a row keeps its own; the same text with different prompts is two tasks.
        executor: compares the pairs if there are many.

    Raises:
        Interrupted: asked to stop; nothing is kept.
    """
    reporter = reporter or SilentReporter()
    batches = _batches(_Unknown(clusters, own, len(distinct)), distinct, bands, words, reporter)
    for left, right in compared(similar_pairs, partial(float, threshold), batches, _named, executor, reporter):
        clusters.join(left, right)


def _named(pairs: Pairs) -> str:
    return f"{len(pairs.left)} pairs of similar tasks"


class _Unknown:
    """Tells which pairs still have to be compared: those in different clusters that were not compared before.

    Pairs found unlike are remembered in a table of fixed size, in which a newer pair replaces an older one with the
    same place. A pair that is forgotten is compared again.
    """

    def __init__(self, clusters: Clusters, own: U8 | None, count: int) -> None:
        self._clusters, self._own = clusters, own
        self._bits = min(_REMEMBERED_BITS, count.bit_length())
        self._table = np.zeros(1 << self._bits, dtype=np.uint64)

    def among(self, pairs: U8) -> tuple[Indices, Indices]:
        """Those of `pairs` (left << 32 | right) that are unknown; from now on they are known."""
        places = (pairs * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - self._bits)
        pairs, places = _at(self._table[places] != pairs, pairs, places)
        left, right = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
        apart = self._clusters.of(left) != self._clusters.of(right)
        if self._own is not None:
            apart &= self._own[left] == self._own[right]
        self._table[places[apart]] = pairs[apart]
        return left[apart], right[apart]


def _at(chosen: Flags, first: U8, second: U8) -> tuple[U8, U8]:
    return first[chosen], second[chosen]


def _batches(
    unknown: _Unknown, distinct: Flags, bands: Sequence[Path], words: Words, reporter: Reporter
) -> Iterator[Pairs]:
    """The pairs to compare. What is joined while they are read reduces them."""
    for number, band in enumerate(bands):
        for keyed in _parts(mapped_array(band, np.uint32), distinct):
            for pairs in _proposed(keyed):
                waiting: list[tuple[Indices, Indices]] = []
                for start in range(0, len(pairs), _LOOK):
                    hear_stop(reporter)
                    waiting.append(unknown.among(pairs[start : start + _LOOK]))
                    if sum(len(left) for left, _ in waiting) >= _MOST_PAIRS:
                        yield from _cut(waiting, words)
                yield from _cut(waiting, words)
            hear_stop(reporter)
        reporter.advance(number + 1)


def _cut(waiting: list[tuple[Indices, Indices]], words: Words) -> Iterator[Pairs]:
    """Batches of the pairs that are waiting; then none is."""
    if not waiting:
        return
    left, right = (np.concatenate(side) for side in zip(*waiting, strict=True))
    waiting.clear()
    sizes = np.cumsum(words.counts(left) + words.counts(right))
    start = 0
    while start < len(left):
        before = int(sizes[start - 1]) if start else 0
        end = int(np.searchsorted(sizes, before + _MOST_WORDS, side="right"))
        end = min(max(end, start + 1), start + _MOST_PAIRS)
        yield pairs_with_words(left[start:end], right[start:end], words)
        start = end


def _parts(keys: U4, distinct: Flags) -> Iterator[U8]:
    """hash << 32 | row, sorted, in parts; equal hashes are in the same part."""
    parts = parts_for(len(keys))
    bounds = [part * (1 << 32) // parts for part in range(parts + 1)]
    for low, high in pairwise(bounds):
        found = [np.empty(0, dtype=np.uint64)]
        for start in range(0, len(keys), _STEP):
            here = keys[start : start + _STEP]
            rows = np.flatnonzero(distinct[start : start + _STEP] & (here >= low) & (here <= high - 1))
            found.append(here[rows].astype(np.uint64) << np.uint64(32) | (rows + start).astype(np.uint64))
        keyed = np.concatenate(found)
        found.clear()
        keyed.sort()
        yield keyed


def _proposed(keyed: U8) -> Iterator[U8]:
    """Pairs of rows (left << 32 | right) with the same hash, at most _LOOK_BACK places apart, in order of the rows."""
    hashes = (keyed >> np.uint64(32)).astype(np.uint32)
    for back in range(1, _LOOK_BACK + 1):
        same = np.flatnonzero(hashes[back:] == hashes[:-back])
        pairs = keyed[same] << np.uint64(32) | (keyed[same + back] & np.uint64(0xFFFFFFFF))
        pairs.sort()
        yield pairs
