"""Does a task look like another role's? A naive Bayes classifier on its words, each row left out of its own model.

The check is measured on the rows themselves: how many are found when their role is swapped on purpose, and
how often it agrees with the log. Where it does not beat the most frequent role it flags nothing.
(Multinomial naive Bayes: Manning, Raghavan and Schütze, Introduction to Information Retrieval, chapter 13.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from journeyman.curation.columns import Flags, Indices, Rows
from journeyman.curation.duplicates import Words

_BUCKETS = 1 << 15
_SMOOTHING = 0.1
_FEWEST_ROWS = 8
_ODDS = 20.0
_CHUNK = 50_000


@dataclass(frozen=True)
class Routing:
    """The check's result and its own quality.

    Attributes:
        flagged: for each of the rows given.
        looks_like: the role code that each looks like.
        agreement: share of rows whose role the classifier would have given.
        majority: share of the most frequent role: what guessing gives.
        found: share of rows that are flagged when their role is swapped for another on purpose.
        note: why nothing is flagged, where that is so.
    """

    flagged: Flags
    looks_like: Indices
    agreement: float | None = None
    majority: float | None = None
    found: float | None = None
    note: str = ""


def check_routing(columns: Rows, rows: Indices, words: Words) -> Routing:
    """Examines `rows`, which should hold no repeats."""
    nothing = Routing(np.zeros(len(rows), dtype=bool), columns["role"][rows].astype(np.int64))
    logged = columns["role"][rows].astype(np.int64)
    sizes = np.bincount(logged) if len(rows) else np.zeros(0, np.int64)
    roles = np.flatnonzero(sizes >= _FEWEST_ROWS)
    if len(roles) < 2:
        return Routing(nothing.flagged, nothing.looks_like, note=f"fewer than two roles have {_FEWEST_ROWS} tasks")
    place = np.full(len(sizes), -1)
    place[roles] = np.arange(len(roles))
    scores = _scores(place[logged], len(roles), rows, words)
    best = scores.argmax(axis=1)
    known = place[logged] >= 0
    majority = sizes[roles].max() / sizes[roles].sum()
    agreement = float((best == place[logged])[known].mean())
    margin = np.log(_ODDS)
    lead = scores.max(axis=1)[:, None] - scores  # [rows, roles]: how far each role lies behind the best
    swapped = _swapped(lead, place[logged], margin)
    if agreement < majority + 0.05:
        note = f"the tasks do not tell the roles apart (agreement {agreement:.0%}, guessing gives {majority:.0%})"
        return Routing(nothing.flagged, nothing.looks_like, agreement, float(majority), swapped, note)
    flagged = np.zeros(len(rows), dtype=bool)
    flagged[known] = lead[np.flatnonzero(known), place[logged][known]] >= margin
    return Routing(flagged, roles[best], agreement, float(majority), swapped)


def _scores(logged: Indices, roles: int, rows: Indices, words: Words) -> np.ndarray:
    """[rows, roles] log probabilities, each row's own words taken out of its own role's counts."""
    counts = np.zeros((roles, _BUCKETS))
    sizes = np.bincount(logged[logged >= 0], minlength=roles).astype(float)
    for start in range(0, len(rows), _CHUNK):
        flat, owner = words.many(rows[start : start + _CHUNK])
        role = logged[start : start + _CHUNK][owner]
        np.add.at(counts, (role[role >= 0], (flat % _BUCKETS)[role >= 0]), 1)
    totals = counts.sum(axis=1)
    scores = np.zeros((len(rows), roles))
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        flat, owner = words.many(rows[part])
        own_length = np.bincount(owner, minlength=len(rows[part]))
        # How often a word stands in its own row: that much of the count is the row's own.
        _, inverse, repeats = np.unique(owner * _BUCKETS + flat % _BUCKETS, return_inverse=True, return_counts=True)
        for role in range(roles):
            mine = logged[part] == role
            own = np.where(mine[owner], repeats[inverse], 0)
            total = totals[role] - np.where(mine, own_length, 0) + _SMOOTHING * _BUCKETS
            word = np.log(counts[role, flat % _BUCKETS] - own + _SMOOTHING) - np.log(total)[owner]
            prior = np.log(np.maximum(sizes[role] - mine, 0.5))
            scores[part, role] = np.bincount(owner, weights=word, minlength=len(rows[part])) + prior
    return scores


def _swapped(lead: np.ndarray, logged: Indices, margin: float) -> float:
    """Share found when each row claims each other role in turn."""
    other = np.ones_like(lead, dtype=bool)
    known = np.flatnonzero(logged >= 0)
    other[known, logged[known]] = False
    return float((lead[known] >= margin)[other[known]].mean())
