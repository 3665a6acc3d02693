"""Does a task look like another role's? Two checks, each measured on the log that it examines.

The first compares a task with the roles' descriptions: words that occur in only one role's system prompt
(`implement` in the coder's, `verify` in the tester's). The second is for prompts that do not differ: a naive Bayes
classifier on the words of the tasks, with each row left out of its own model and equal weight for all roles (Manning,
Raghavan and Schütze, Introduction to Information Retrieval, chapter 13). A check that cannot distinguish the roles
flags nothing. Its quality is reported: how often it agrees with the log, averaged over the roles, and how many rows it
finds when roles are swapped deliberately.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from journeyman.curation.columns import U4, Flags, Indices
from journeyman.curation.duplicates import Words
from journeyman.reasons import Reason, dataset

Scores = NDArray[np.float64]
_BUCKETS = 1 << 15
_SMOOTHING = 0.1
_FEWEST_ROWS = 5
_ODDS = 20.0
_CHUNK = 50_000
_BETTER_THAN_GUESSING = 0.2
_LEAST_COVERED = 0.2
_SHORTEST_WORD = 4


@dataclass(frozen=True)
class Routing:
    """The result of the check that was used, and its quality.

    Attributes:
        flagged: whether each of the given rows is flagged.
        looks_like: the role code that each row looks like.
        method: what the tasks were compared with.
        agreement: share of rows whose role the check predicts as logged, averaged over the roles.
        guessing: the agreement of a random guess, one over the number of roles.
        found: share of rows that are flagged when their role is swapped for another deliberately.
        note: why nothing is flagged, if so.
    """

    flagged: Flags
    looks_like: Indices
    method: str = ""
    agreement: float | None = None
    guessing: float | None = None
    found: float | None = None
    note: Reason | None = None


def check_routing(logged: Indices, rows: Indices, words: Words, prompts: Sequence[str]) -> Routing:
    """Examines `rows`, which should contain each task once per role.

    Args:
        logged: the role code of each of `rows`.
        prompts: the system prompt of each role, by code; empty if there is none.
    """
    sizes = np.bincount(logged, minlength=len(prompts))
    roles = np.flatnonzero(sizes >= _FEWEST_ROWS)
    nothing = np.zeros(len(rows), dtype=bool)
    if len(roles) < 2:
        return Routing(nothing, logged, note=dataset.TooFewTasks(_FEWEST_ROWS))
    described = _by_description(logged, roles, rows, words, prompts)
    if described.note is None:
        return described
    learned = _by_words(logged, roles, rows, words)
    return learned if learned.note is None or not described.method else described


def _by_description(logged: Indices, roles: Indices, rows: Indices, words: Words, prompts: Sequence[str]) -> Routing:
    own = _own_words(prompts)
    scores = np.zeros((len(rows), len(prompts)))
    for start in range(0, len(rows), _CHUNK):
        flat, owner = words.many(rows[start : start + _CHUNK])
        for role, hashes in enumerate(own):
            hit = np.isin(flat, hashes)
            pairs = np.unique(np.stack([owner[hit], flat[hit]]), axis=1)
            scores[start : start + _CHUNK, role] = np.bincount(pairs[0], minlength=len(rows[start : start + _CHUNK]))
    best = scores.argmax(axis=1)
    ranked = np.sort(scores, axis=1)
    decided = ranked[:, -1] > ranked[:, -2]
    agreement = _balanced(logged[decided], best[decided], roles)
    guessing = 1 / len(roles)
    missing = (scores == 0) & (ranked[:, -1:] > 0)  # [rows, roles]: the task has none of the role's words
    other = np.ones_like(missing)
    other[np.arange(len(rows)), logged] = False
    found = float(missing[:, roles][other[:, roles]].mean())
    note = None
    if decided.mean() < _LEAST_COVERED or agreement is None or agreement < guessing + _BETTER_THAN_GUESSING:
        note = dataset.PromptsAlike()
    flagged = missing[np.arange(len(rows)), logged] & (note is None)
    return Routing(flagged, best, "the roles' system prompts", agreement, guessing, found, note)


def _own_words(prompts: Sequence[str]) -> list[U4]:
    """For each role, the hashes of the words that occur in no other role's prompt."""
    sets = [{w for w in re.findall(r"\w+", p.lower()) if len(w) >= _SHORTEST_WORD} for p in prompts]
    only = [{w for w in one if sum(w in other for other in sets) == 1} for one in sets]
    return [np.array(sorted(zlib.crc32(w.encode()) for w in one), dtype=np.uint32) for one in only]


def _balanced(logged: Indices, given: Indices, roles: Indices) -> float | None:
    """The share of correctly predicted rows, averaged over the roles."""
    shares = [float((given[logged == role] == role).mean()) for role in roles if (logged == role).any()]
    return sum(shares) / len(shares) if shares else None


def _by_words(logged: Indices, roles: Indices, rows: Indices, words: Words) -> Routing:
    place = np.full(int(logged.max()) + 1, -1)
    place[roles] = np.arange(len(roles))
    known = place[logged] >= 0
    scores = _scores(place[logged], len(roles), rows, words)
    best = roles[scores.argmax(axis=1)]
    lead = scores.max(axis=1)[:, None] - scores  # [rows, roles]: distance of each role from the best
    far = lead >= np.log(_ODDS)
    agreement, guessing = _balanced(logged[known], best[known], roles), 1 / len(roles)
    other = np.ones_like(far)
    at = np.flatnonzero(known)
    other[at, place[logged[at]]] = False
    found = float(far[known][other[known]].mean())
    note = None
    if agreement is None or agreement < guessing + _BETTER_THAN_GUESSING:
        note = dataset.TasksAlike(agreement, guessing)
    flagged = np.zeros(len(rows), dtype=bool)
    flagged[at] = far[at, place[logged[at]]] & (note is None)
    return Routing(flagged, best, "the words of the roles' tasks", agreement, guessing, found, note)


def _scores(logged: Indices, roles: int, rows: Indices, words: Words) -> Scores:
    """[rows, roles] log likelihoods, with each row's words subtracted from the counts of its own role."""
    counts = np.zeros((roles, _BUCKETS))
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
        # How often a word occurs in its own row: the part of the count that must be subtracted.
        _, inverse, repeats = np.unique(owner * _BUCKETS + flat % _BUCKETS, return_inverse=True, return_counts=True)
        for one in range(roles):
            mine = logged[part] == one
            own = np.where(mine[owner], repeats[inverse], 0)
            total = totals[one] - np.where(mine, own_length, 0) + _SMOOTHING * _BUCKETS
            word = np.log(counts[one, flat % _BUCKETS] - own + _SMOOTHING) - np.log(total)[owner]
            scores[part, one] = np.bincount(owner, weights=word, minlength=len(rows[part]))
    return scores
