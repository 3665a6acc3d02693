"""What near-duplicates are recognized by: the words of a task, their trigrams, and MinHash signatures (rensa) in bands.

32 bands of 4 hashes find a pair of similarity 0.7 with probability 0.9998 (Broder 1997; Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rensa import RMinHash

from journeyman.curation.columns import U4, U8, Indices, mapped_array

BANDS, _ROWS_A_BAND = 32, 4
_MOST_WORDS = 2048
_MOST_HASHES = 500_000
_CHUNK = 1 << 19
_BLOCK = 1 << 16
"""Rows whose words are counted from the same place: they have less than 2³² words together."""


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
        return _mixed(np.array([int(wide.sum()) + 7], dtype=np.uint64))
    return _mixed(wide[:-2] * np.uint64(0x9E3779B97F4A7C15) + wide[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F) + wide[2:])


def _mixed(wide: U8) -> U8:
    wide = (wide ^ (wide >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    return wide ^ (wide >> np.uint64(32))


def trigrams_of_many(flat: U4, counts: Indices) -> tuple[U8, Indices]:
    """The trigrams of texts whose words are stored end to end, and how many each text has.

    Args:
        counts: how many words each text has.
    """
    made = np.maximum(counts - 2, 1)
    starts = np.cumsum(counts) - counts
    places = np.arange(made.sum()) - np.repeat(np.cumsum(made) - made - starts, made)
    short = np.flatnonzero(counts < 3)
    ends = np.cumsum(made)
    places[ends[short] - 1] = 0
    grams = trigrams(flat)[places] if len(flat) > 2 else np.empty(len(places), dtype=np.uint64)
    for text in short.tolist():
        grams[ends[text] - 1] = trigrams(flat[starts[text] : starts[text] + counts[text]])[0]
    return grams, made


def jaccard(left: U8, right: U8) -> float:
    """Jaccard similarity of two sets of trigrams, given with repetitions."""
    a, b = np.unique(left), np.unique(right)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def signatures(words: Sequence[U4]) -> U8:
    """Returns [texts, 128]: MinHash signatures. The share of places in which two are equal estimates the Jaccard
    similarity of their trigrams, with a standard error of at most 0.045."""
    grams = [trigrams(one) for one in words]
    offsets = np.cumsum([0, *map(len, grams)], dtype=np.uint64)
    flat = np.concatenate(grams) if grams else np.empty(0, np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, BANDS * _ROWS_A_BAND, 0)
    return np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(grams), BANDS * _ROWS_A_BAND)


def bands_of(words: Sequence[U4]) -> U4:
    """Returns [texts, BANDS]: texts that agree in any band are candidates."""
    digests = signatures(words).reshape(len(words), BANDS, _ROWS_A_BAND)
    factors = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], dtype=np.uint64)
    mixed = (digests * factors).sum(axis=2, dtype=np.uint64)
    return np.asarray((mixed ^ (mixed >> np.uint64(29))) & np.uint64(0xFFFFFFFF), dtype=np.uint32)


class Words:
    """The words of every row, on disk; where a row's words end takes four bytes of memory.

    Args:
        path: the rows' words end to end.
        counts: how many words each row has.
    """

    def __init__(self, path: Path, counts: U4) -> None:
        self._flat = mapped_array(path, np.uint32)
        self._counts = counts
        self._ends = np.empty(len(counts), dtype=np.uint32)
        """Relative to the start of the block of rows."""
        self._blocks = [0]
        for start in range(0, len(counts), _BLOCK):
            ends = np.cumsum(counts[start : start + _BLOCK], dtype=np.int64)
            assert ends[-1] < 1 << 32
            self._ends[start : start + _BLOCK] = ends
            self._blocks.append(self._blocks[-1] + int(ends[-1]))
        self._starts = np.array(self._blocks, dtype=np.int64)

    def __getitem__(self, row: int) -> U4:
        end = self._blocks[row // _BLOCK] + int(self._ends[row])
        return np.asarray(self._flat[end - int(self._counts[row]) : end])

    def counts(self, rows: Indices) -> Indices:
        """How many words the rows have."""
        return self._counts[rows].astype(np.int64)

    def chunks(self, rows: Indices) -> Iterator[slice]:
        """Divides `rows`, in their order, into slices with about _CHUNK words each."""
        for start in range(0, len(rows), _BLOCK):
            number = np.cumsum(self.counts(rows[start : start + _BLOCK])) // _CHUNK
            bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
            yield from (slice(start + a, start + b) for a, b in pairwise(bounds))

    def of(self, rows: Indices) -> tuple[U4, Indices]:
        """The words of the rows end to end, and how many each has."""
        counts = self.counts(rows)
        starts = self._starts[rows // _BLOCK] + self._ends[rows] - counts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(self._flat)[np.repeat(starts, counts) + within], counts

    def many(self, rows: Indices) -> tuple[U4, Indices]:
        """The words of the rows end to end, and for each word the index of its row in `rows`."""
        flat, counts = self.of(rows)
        return flat, np.repeat(np.arange(len(rows)), counts)
