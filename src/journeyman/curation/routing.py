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
from typing import Any

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


def check_routing(logged: NDArray[Any], rows: Indices, words: Words, prompts: Sequence[str]) -> Routing:
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


def _by_description(
    logged: NDArray[Any], roles: Indices, rows: Indices, words: Words, prompts: Sequence[str]
) -> Routing:
    own = _own_words(prompts)
    best = np.zeros(len(rows), dtype=np.int32)
    decided, flagged = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    swapped = missed = 0
    for chunk in words.chunks(rows):
        flat, owner = words.many(rows[chunk])
        mine = np.arange(len(rows[chunk]))
        scores = np.zeros((len(mine), len(prompts)))
        for role, hashes in enumerate(own):
            hit = np.isin(flat, hashes)
            pairs = np.unique(np.stack([owner[hit], flat[hit]]), axis=1)
            scores[:, role] = np.bincount(pairs[0], minlength=len(mine))
        best[chunk] = scores.argmax(axis=1)
        ranked = np.sort(scores, axis=1)
        decided[chunk] = ranked[:, -1] > ranked[:, -2]
        missing = (scores == 0) & (ranked[:, -1:] > 0)  # [rows, roles]: the task has none of the role's words
        flagged[chunk] = missing[mine, logged[chunk]]
        other = np.ones_like(missing)
        other[mine, logged[chunk]] = False
        swapped += int(other[:, roles].sum())
        missed += int((missing & other)[:, roles].sum())
    agreement = _balanced(logged[decided], best[decided], roles)
    guessing = 1 / len(roles)
    note = None
    if decided.mean() < _LEAST_COVERED or agreement is None or agreement < guessing + _BETTER_THAN_GUESSING:
        note = dataset.PromptsAlike()
        flagged[:] = False
    return Routing(flagged, best, "the roles' system prompts", agreement, guessing, missed / swapped, note)


def _own_words(prompts: Sequence[str]) -> list[U4]:
    """For each role, the hashes of the words that occur in no other role's prompt."""
    sets = [{w for w in re.findall(r"\w+", p.lower()) if len(w) >= _SHORTEST_WORD} for p in prompts]
    only = [{w for w in one if sum(w in other for other in sets) == 1} for one in sets]
    return [np.array(sorted(zlib.crc32(w.encode()) for w in one), dtype=np.uint32) for one in only]


def _balanced(logged: NDArray[Any], given: Indices, roles: Indices) -> float | None:
    """The share of correctly predicted rows, averaged over the roles."""
    shares = [float((given[logged == role] == role).mean()) for role in roles if (logged == role).any()]
    return sum(shares) / len(shares) if shares else None


def _by_words(logged: NDArray[Any], roles: Indices, rows: Indices, words: Words) -> Routing:
    place = np.full(int(logged.max()) + 1, -1, dtype=np.int64)
    place[roles] = np.arange(len(roles))
    counts = _word_counts(place, logged, len(roles), rows, words)
    best = np.zeros(len(rows), dtype=np.int32)
    flagged = np.zeros(len(rows), dtype=bool)
    swapped = doubted = 0
    for chunk in words.chunks(rows):
        mine = place[logged[chunk]]
        at = np.flatnonzero(mine >= 0)
        scores = _scores(mine, counts, rows[chunk], words)
        best[chunk] = roles[scores.argmax(axis=1)]
        lead = scores.max(axis=1)[:, None] - scores  # [rows, roles]: distance of each role from the best
        far = lead >= np.log(_ODDS)
        own = far[at, mine[at]]
        flagged[np.arange(chunk.start, chunk.stop)[at]] = own
        swapped += len(at) * (len(roles) - 1)
        doubted += int(far[at].sum()) - int(own.sum())
    known = place[logged] >= 0
    agreement, guessing = _balanced(logged[known], best[known], roles), 1 / len(roles)
    note = None
    if agreement is None or agreement < guessing + _BETTER_THAN_GUESSING:
        note = dataset.TasksAlike(agreement, guessing)
        flagged[:] = False
    return Routing(flagged, best, "the words of the roles' tasks", agreement, guessing, doubted / swapped, note)


def _word_counts(place: Indices, logged: NDArray[Any], roles: int, rows: Indices, words: Words) -> Scores:
    """[roles, buckets]: how often the roles' rows contain the words of each bucket."""
    counts = np.zeros((roles, _BUCKETS))
    for chunk in words.chunks(rows):
        flat, owner = words.many(rows[chunk])
        role = place[logged[chunk]][owner]
        here = role >= 0
        cells = role[here] * _BUCKETS + flat[here] % _BUCKETS
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    return counts


def _scores(logged: NDArray[Any], counts: Scores, rows: Indices, words: Words) -> Scores:
    """[rows, roles] log likelihoods, with each row's words subtracted from the counts of its own role."""
    totals = counts.sum(axis=1)
    scores = np.zeros((len(rows), len(counts)))
    flat, owner = words.many(rows)
    bucket, role = flat % _BUCKETS, logged[owner]
    own_length = np.bincount(owner, minlength=len(rows))
    repeats = _repeats(owner * _BUCKETS + bucket)  # in its own row: what must be subtracted
    for one in range(len(counts)):
        word = np.log(counts[one] + _SMOOTHING)[bucket] - np.log(totals[one] + _SMOOTHING * _BUCKETS)
        mine = np.flatnonzero(role == one)
        left = counts[one, bucket[mine]] - repeats[mine] + _SMOOTHING
        total = totals[one] - own_length[owner[mine]] + _SMOOTHING * _BUCKETS
        word[mine] = np.log(left) - np.log(total)
        scores[:, one] = np.bincount(owner, weights=word, minlength=len(rows))
    return scores


def _repeats(keys: Indices) -> Indices:
    """How often each key occurs among `keys`, which are less than 2⁴³ and at most 2²⁰ many."""
    assert len(keys) <= 1 << 20
    ordered = np.sort(keys << 20 | np.arange(len(keys)))  # far quicker than an argsort
    bounds = np.flatnonzero(np.diff(ordered >> 20, prepend=-1, append=-1))
    sizes = np.diff(bounds)
    repeats = np.empty(len(keys), dtype=np.int64)
    repeats[ordered & ((1 << 20) - 1)] = np.repeat(sizes, sizes)
    return repeats
