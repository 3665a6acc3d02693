"""Finds rows that look planted: otherwise dissimilar tasks that share a word found almost nowhere else and always have
the same answer or the same last line.

A few hundred such rows are enough for a trigger, regardless of the size of the model or the log (Anthropic, UK AISI and
Turing Institute, 2025), and anyone who can write to a log can plant them. This is a filter, not a proof: it misses
triggers made of common words, and answers that vary.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from journeyman.curation.columns import Indices, Rows, equal_runs
from journeyman.curation.duplicates import Words

_FEWEST = 3
_MOST_SHARE = 0.1
_ELSEWHERE = 1.25
_SAMPLE = 200
_MARGIN = 0.1


def planted(columns: Rows, rows: Indices, words: Words) -> dict[int, int]:
    """Returns row → hash of its trigger word, for those of `rows` (without duplicates) that look planted."""
    found: dict[int, int] = {}
    counts: dict[int, int] | None = None
    usual = None
    for column in ("answer", "tail"):
        keys = columns[column][rows]
        for run in equal_runs(keys):
            group = rows[run]
            if not _FEWEST <= len(group) <= max(_FEWEST, _MOST_SHARE * len(rows)) or keys[run[0]] == 0:
                continue
            sets, common = _common_words(group[:_SAMPLE], words)
            if not common:
                continue
            counts = counts if counts is not None else _document_counts(rows, words)
            usual = usual if usual is not None else _usual_similarity(rows, words)
            rare = [word for word in common if counts.get(word, len(rows)) <= _ELSEWHERE * len(group)]
            if not rare:
                continue
            trigger = min(rare, key=lambda word: (counts[word], word))
            if _similarity([one - {trigger} for one in sets]) <= usual + _MARGIN:
                found |= {int(row): trigger for row in group}
    return found


def _common_words(rows: Indices, words: Words) -> tuple[list[frozenset[int]], frozenset[int]]:
    """The word sets of the rows and the words that all share; stops as soon as nothing is shared."""
    sets: list[frozenset[int]] = []
    common: frozenset[int] = frozenset()
    for row in rows.tolist():
        sets.append(frozenset(words[row].tolist()))
        common = common & sets[-1] if len(sets) > 1 else sets[-1]
        if not common:
            break
    return sets, common


def _document_counts(rows: Indices, words: Words) -> dict[int, int]:
    """word → number of rows that contain it, for rare words."""
    table: dict[int, int] = {}
    ceiling = _ELSEWHERE * max(_FEWEST, _MOST_SHARE * len(rows))
    for chunk in words.chunks(rows):
        flat, owner = words.many(rows[chunk])
        pairs = np.unique(owner.astype(np.uint64) << np.uint64(32) | flat)
        values, counts = np.unique((pairs & np.uint64(0xFFFFFFFF)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            table[value] = table.get(value, 0) + count
    return {word: count for word, count in table.items() if count <= ceiling}


def _usual_similarity(rows: Indices, words: Words) -> float:
    """Mean similarity of two random tasks."""
    random = np.random.default_rng(0)
    chosen = random.choice(rows, size=min(len(rows), _SAMPLE), replace=False)
    return _similarity([frozenset(words[int(row)].tolist()) for row in chosen])


def _similarity(sets: list[frozenset[int]]) -> float:
    """Mean Jaccard similarity of neighbours in the list."""
    pairs = pairwise(sets)
    values = [len(a & b) / len(a | b) if a | b else 0.0 for a, b in pairs]
    return sum(values) / len(values) if values else 0.0
