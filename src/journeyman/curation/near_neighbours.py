"""Finds every near-duplicate of a few rows among all others, exactly: workers get the others with their words.

Prefix filtering (Chaudhuri, Ganti and Kaushik, 2006): two sets of similarity t share at least one of the first
|a| - ceil(t|a|) + 1 elements of a, in any fixed order; the order here is rarest first among the tested rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from journeyman.curation.columns import U4, U8, Flags, Indices
from journeyman.curation.comparing import compared
from journeyman.curation.duplicates import Words, jaccard, trigrams, trigrams_of_many
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter, SilentReporter

_CHUNK = 20_000
"""Rows whose findings are sorted together."""
_BITS = 22


@dataclass(frozen=True)
class _Others:
    """Rows with their words end to end, which are a part of a chunk."""

    chunk: int
    rows: U4
    flat: U4
    counts: U4


class _Tested:
    """The trigrams of the tested rows, and which rows have which rare ones.

    Attributes:
        sets: row → its trigrams.
        prefixes: the rare trigrams, sorted.
        holders: rare trigram → the rows that have it.
    """

    def __init__(self, sets: dict[int, U8], threshold: float) -> None:
        self.sets, self.threshold = sets, threshold
        values, counts = np.unique(np.concatenate([*sets.values(), np.empty(0, np.uint64)]), return_counts=True)
        self.holders: dict[int, list[int]] = {}
        for row, grams in sets.items():
            rarest = grams[np.argsort(counts[np.searchsorted(values, grams)], kind="stable")]
            for gram in rarest[: len(rarest) - int(np.ceil(threshold * len(rarest) - 1e-9)) + 1].tolist():
                self.holders.setdefault(gram, []).append(row)
        self.prefixes: U8 = np.sort(np.fromiter(self.holders, dtype=np.uint64, count=len(self.holders)))
        self._maybe = np.zeros(1 << _BITS, dtype=bool)
        self._maybe[self.prefixes >> np.uint64(64 - _BITS)] = True

    def hits(self, grams: U8) -> Indices:
        """The indices of those of `grams` that are among the prefixes; most are ruled out by their first bits."""
        places = np.flatnonzero(self._maybe[grams >> np.uint64(64 - _BITS)])
        found = np.searchsorted(self.prefixes, grams[places])
        same: Flags = self.prefixes[np.minimum(found, len(self.prefixes) - 1)] == grams[places]
        return places[same]


def near_neighbours(
    tested: Indices,
    others: Indices,
    words: Words,
    threshold: float,
    executor: Executor = HERE,
    reporter: Reporter | None = None,
) -> list[tuple[int, int]]:
    """Finds every pair (tested, other) that reaches `threshold`, in an order that no executor changes.

    Texts of fewer than three words are either equal or not, and equal ones are already in one group.

    Raises:
        Interrupted: asked to stop; nothing is kept.
    """
    reporter = reporter or SilentReporter()
    sets = {int(row): np.unique(trigrams(words[row])) for row in tested}
    if not sets:
        return []
    reporter.begin("curate: leak check", len(others), "rows")
    found: list[tuple[int, int, int]] = []
    done = 0
    setup = partial(_Tested, sets, threshold)
    for rows, pairs in compared(_near, setup, _batches(others, words), _named, executor, reporter):
        found += pairs
        done += rows
        reporter.advance(done)
    return [(row, other) for _, row, other in sorted(found)]


def _named(others: _Others) -> str:
    return f"tasks of rows {others.rows[0] + 1} to {others.rows[-1] + 1} of the interactions"


def _batches(others: Indices, words: Words) -> Iterator[_Others]:
    for start in range(0, len(others), _CHUNK):
        chunk = others[start : start + _CHUNK]
        for part in words.chunks(chunk):
            flat, counts = words.of(chunk[part])
            yield _Others(start, chunk[part].astype(np.uint32), flat, counts.astype(np.uint32))


def _near(tested: _Tested, others: _Others) -> tuple[int, list[tuple[int, int, int]]]:
    """How many rows were compared; (chunk, tested row, other row) of each pair that is alike."""
    counts = others.counts.astype(np.int64)
    long = np.flatnonzero(counts > 2)
    grams, made = trigrams_of_many(others.flat, counts)
    owner = np.repeat(np.arange(len(counts)), made)
    ends = np.cumsum(made)
    candidates: dict[int, set[int]] = {}
    for place in tested.hits(grams).tolist():
        candidates.setdefault(int(owner[place]), set()).update(tested.holders[int(grams[place])])
    found = []
    for one in sorted(candidates.keys() & set(long.tolist())):
        mine = grams[ends[one] - made[one] : ends[one]]
        found += [
            (others.chunk, row, int(others.rows[one]))
            for row in candidates[one]
            if jaccard(tested.sets[row], mine) >= tested.threshold
        ]
    return len(counts), found
