"""Which of many pairs of texts are near-duplicates: the exact Jaccard similarity of their trigrams, by whole arrays.

This is the part of the search for near-duplicates that workers do: a batch has all the words that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from journeyman.curation.columns import U4, U8, Flags, Indices
from journeyman.curation.duplicates import Words, trigrams_of_many

_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Fills the places of a row of trigrams that are empty."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows with their words.

    Attributes:
        rows: the rows that occur in the pairs.
        flat: their words, end to end.
        counts: how many words each has.
        left, right: the pairs, as indices into `rows`.
    """

    rows: U4
    flat: U4
    counts: U4
    left: U4
    right: U4


def pairs_with_words(left: Indices, right: Indices, words: Words) -> Pairs:
    """The pairs (left[i], right[i]) with their words, which are read in the order of the rows."""
    rows, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    flat, counts = words.of(rows)
    small = [values.astype(np.uint32) for values in (rows, flat, counts, places)]
    return Pairs(small[0], small[1], small[2], small[3][: len(left)], small[3][len(left) :])


def similar_pairs(threshold: float, pairs: Pairs) -> tuple[U4, U4]:
    """The pairs of rows whose similarity reaches `threshold`."""
    alike = jaccard_of_pairs(pairs) >= threshold
    return pairs.rows[pairs.left[alike]], pairs.rows[pairs.right[alike]]


def jaccard_of_pairs(pairs: Pairs) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The Jaccard similarity of the two sets of trigrams of each pair."""
    grams, counts = trigrams_of_many(pairs.flat, pairs.counts.astype(np.int64))
    starts = np.cumsum(counts) - counts
    similarity = np.empty(len(pairs.left))
    widths = np.maximum(counts[pairs.left], counts[pairs.right])
    scale = np.frexp(widths)[1]  # pairs of about the same width together, so that little is padded
    for one in np.unique(scale).tolist():
        mine = np.flatnonzero(scale == one)
        width = int(widths[mine].max())
        a, len_a = _sets(grams, starts[pairs.left[mine]], counts[pairs.left[mine]], width)
        b, len_b = _sets(grams, starts[pairs.right[mine]], counts[pairs.right[mine]], width)
        both = np.sort(np.concatenate([a, b], axis=1), axis=1)
        shared = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] != _NONE)).sum(axis=1)
        similarity[mine] = shared / (len_a + len_b - shared)
    return similarity


def _sets(grams: U8, starts: Indices, counts: Indices, width: int) -> tuple[U8, Indices]:
    """The distinct trigrams of some texts, [texts, width], filled up with _NONE, and how many each text has."""
    columns = np.arange(width)
    inside: Flags = columns < counts[:, None]
    table = np.where(inside, grams[np.where(inside, starts[:, None] + columns, 0)], _NONE)
    table.sort(axis=1)
    again = (table[:, 1:] == table[:, :-1]) & (table[:, 1:] != _NONE)
    table[:, 1:][again] = _NONE
    return table, counts - again.sum(axis=1)
