"""The answer of the most similar training task of the same role, copied: what no model at all achieves.

Similarity is that of near-duplicates in curate: the Jaccard similarity of word trigrams, over all turns but the system
prompt. If nothing is shared, an arbitrary answer is copied, which shows checks that pass anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from journeyman.curation.columns import U8, Indices
from journeyman.curation.duplicates import trigrams, words_of
from journeyman.inference.arms import teacher_predictions
from journeyman.probing.recommending import COPY
from journeyman.records import Example, Prediction, split_system


@dataclass(frozen=True)
class Copied:
    """A training row whose answer is copied. `similarity` is from 0 to 1."""

    row: Example
    similarity: float


def nearest(train: Sequence[Example], asked: Sequence[Example]) -> dict[str, Copied]:
    """Id of an asked row → the most similar training row of its role, the first of several; none for a role without
    training rows."""
    roles: dict[str, list[Example]] = defaultdict(list)
    for row in train:
        roles[row.role].append(row)
    tasks = {role: _Tasks(rows) for role, rows in roles.items()}
    return {row.id: tasks[row.role].nearest(row) for row in asked if row.role in tasks}


def copied_answers(asked: Sequence[Example], found: Mapping[str, Copied]) -> list[Prediction]:
    """The copied answers, to be scored like those of other arms."""
    answered = [row for row in asked if row.id in found]
    copies = teacher_predictions([found[row.id].row for row in answered])
    return [
        one.model_copy(update={"id": row.id, "arm": COPY, "latency_s": None})
        for row, one in zip(answered, copies, strict=True)
    ]


class _Tasks:
    """The tasks of a role's training rows, by their trigrams."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._rows = rows
        sets = [_grams(row) for row in rows]
        self._sizes: Indices = np.array([len(one) for one in sets], dtype=np.int64)
        grams = np.concatenate(sets)
        order = np.argsort(grams, kind="stable")
        self._grams: U8 = grams[order]
        self._owners: Indices = np.repeat(np.arange(len(rows)), self._sizes)[order]

    def nearest(self, row: Example) -> Copied:
        grams = _grams(row)
        starts, ends = (np.searchsorted(self._grams, grams, side=side) for side in ("left", "right"))
        holders = [self._owners[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
        shared = np.bincount(np.concatenate([*holders, np.empty(0, np.int64)]), minlength=len(self._rows))
        similarity = shared / (len(grams) + self._sizes - shared)
        best = int(similarity.argmax())
        return Copied(self._rows[best], float(similarity[best]))


def _grams(row: Example) -> U8:
    """The distinct trigrams of what is asked, as curate compares it."""
    return np.unique(trigrams(words_of("\n".join(turn.content for turn in split_system(row.messages)[1]))))
