"""Finds duplicate tasks: word trigrams, MinHash signatures (rensa), bands, then the exact Jaccard similarity.

32 bands of 4 hashes find a pair of similarity 0.7 with probability 0.9998 (Broder 1997; Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3). Only one band is in memory at a time.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rensa import RMinHash

from journeyman.curation.columns import U4, U8, Flags, Indices, mapped_array

BANDS, _ROWS_A_BAND = 32, 4
_MOST_WORDS = 2048
_LOOK_BACK = 3
_CHUNK = 20_000
_MOST_HASHES = 500_000


def words_of(text: str) -> U4:
    """Lower-case words as 32-bit hashes; only the first and last 1,024 of a text of more than 2,048 words."""
    found = re.findall(r"\w+", text.lower())
    if len(found) > _MOST_WORDS:
        found = found[: _MOST_WORDS // 2] + found[-_MOST_WORDS // 2 :]
    return np.fromiter(map(_HASHES.__getitem__, found), dtype=np.uint32, count=len(found))


class _Hashes(dict[str, int]):
    """Hashes each word once, since words repeat; the table is cleared before it grows large."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_HASHES:
            self.clear()
        self[word] = made = zlib.crc32(word.encode())
        return made


_HASHES = _Hashes()


def trigrams(words: U4) -> U8:
    """Hashes of word trigrams; fewer than three words count as one trigram."""
    wide = words.astype(np.uint64)
    if len(wide) < 3:
        wide = np.array([int(wide.sum()) + 7], dtype=np.uint64)
    else:
        wide = wide[:-2] * np.uint64(0x9E3779B97F4A7C15) + wide[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F) + wide[2:]
    wide = (wide ^ (wide >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    return wide ^ (wide >> np.uint64(32))


def jaccard(left: U8, right: U8) -> float:
    """Jaccard similarity of two sets of trigrams, given with repetitions."""
    a, b = np.unique(left), np.unique(right)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def bands_of(words: Sequence[U4]) -> U4:
    """Returns [texts, BANDS]: texts that agree in any band are candidates."""
    grams = [trigrams(one) for one in words]
    offsets = np.cumsum([0, *map(len, grams)], dtype=np.uint64)
    flat = np.concatenate(grams) if grams else np.empty(0, np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, BANDS * _ROWS_A_BAND, 0)
    digests = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(grams), BANDS, _ROWS_A_BAND)
    factors = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], dtype=np.uint64)
    mixed = (digests * factors).sum(axis=2, dtype=np.uint64)
    return np.asarray((mixed ^ (mixed >> np.uint64(29))) & np.uint64(0xFFFFFFFF), dtype=np.uint32)


class Words:
    """The words of every row, on disk."""

    def __init__(self, path: Path, counts: U4) -> None:
        self._flat = mapped_array(path, np.uint32)
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._counts = counts

    def __getitem__(self, row: int) -> U4:
        end = self._ends[row]
        return np.asarray(self._flat[end - self._counts[row] : end])

    def many(self, rows: Indices) -> tuple[U4, Indices]:
        """The words of the rows end to end, and for each word the index of its row in `rows`."""
        counts = self._counts[rows].astype(np.int64)
        starts = self._ends[rows] - counts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(self._flat)[np.repeat(starts, counts) + within], np.repeat(np.arange(len(rows)), counts)


class Clusters:
    """Sets of items that are linked directly or through others (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)

    def join(self, left: int, right: int) -> None:
        a, b = self.find(left), self.find(right)
        self._parent[max(a, b)] = min(a, b)

    def find(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = int(parent[item])
        return item

    def join_equal(self, keys: U8, rows: Indices) -> None:
        """Links the rows whose keys are equal; a key of 0 means none."""
        rows = rows[keys[rows] != 0]
        order = rows[np.argsort(keys[rows], kind="stable")]
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        for left, right in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            self.join(left, right)

    def roots(self) -> Indices:
        """The smallest item of each item's cluster."""
        parent = self._parent
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                return parent.copy()
            parent = self._parent = above


def join_near(
    clusters: Clusters, rows: Indices, bands: Sequence[Path], words: Words, threshold: float, own: U8 | None = None
) -> None:
    """Links rows whose trigram similarity reaches `threshold`; `rows` are distinct texts.

    Args:
        own: hash of the prompt if a row keeps its own; the same text with different prompts is two tasks.
    """
    unlike: set[tuple[int, int]] = set()
    for path in bands:
        keys = np.asarray(mapped_array(path, np.uint32)[rows])
        order = np.argsort(keys, kind="stable")
        for back in range(1, _LOOK_BACK + 1):
            same = np.flatnonzero(keys[order[back:]] == keys[order[:-back]])
            pairs = zip(rows[order[same]].tolist(), rows[order[same + back]].tolist(), strict=True)
            for left, right in pairs:
                if (
                    (own is not None and own[left] != own[right])
                    or (left, right) in unlike
                    or clusters.find(left) == clusters.find(right)
                ):
                    continue
                if jaccard(trigrams(words[left]), trigrams(words[right])) >= threshold:
                    clusters.join(left, right)
                elif len(unlike) < 2_000_000:
                    unlike.add((left, right))


def near_neighbours(tested: Indices, others: Indices, words: Words, threshold: float) -> list[tuple[int, int]]:
    """Finds every pair (tested, other) that reaches `threshold`, exactly, by prefix filtering (Chaudhuri 2006).

    Two sets of similarity t share at least one of the first |a| - ceil(t|a|) + 1 elements of a, in any fixed order;
    the order here is rarest first among the tested rows. Texts of fewer than three words are either equal or not, and
    equal ones are already in one group.
    """
    sets = {int(row): np.unique(trigrams(words[row])) for row in tested}
    values, counts = np.unique(np.concatenate([*sets.values(), np.empty(0, np.uint64)]), return_counts=True)
    holders: dict[int, list[int]] = {}
    for row, grams in sets.items():
        rarest = grams[np.argsort(counts[np.searchsorted(values, grams)], kind="stable")]
        for gram in rarest[: len(rarest) - int(np.ceil(threshold * len(rarest) - 1e-9)) + 1].tolist():
            holders.setdefault(gram, []).append(row)
    prefixes = np.sort(np.fromiter(holders, dtype=np.uint64, count=len(holders)))
    found = []
    for start in range(0, len(others) if len(prefixes) else 0, _CHUNK):
        part = others[start : start + _CHUNK]
        grams, owner = _trigrams_of_many(*words.many(part))
        place = np.minimum(np.searchsorted(prefixes, grams), len(prefixes) - 1)
        hits: Flags = prefixes[place] == grams
        candidates = {
            (row, int(part[o]))
            for gram, o in zip(grams[hits].tolist(), owner[hits], strict=True)
            for row in holders[gram]
        }
        found += [
            (row, other) for row, other in sorted(candidates) if jaccard(sets[row], trigrams(words[other])) >= threshold
        ]
    return found


def _trigrams_of_many(flat: U4, owner: Indices) -> tuple[U8, Indices]:
    """The trigrams of texts that are stored end to end, and the text of each. Texts under three words have none."""
    if len(flat) < 3:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    inside = owner[:-2] == owner[2:]
    return trigrams(flat)[inside], owner[:-2][inside]
