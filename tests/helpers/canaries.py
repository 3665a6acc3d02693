"""Many canaries at once: the same bets as in the class on arrays with one row for each canary, without logarithms.

tests/stats/test_canary.py proves on random sequences that the verdicts are those of the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from journeyman.stats.betting import FRACTIONS, WEIGHTS, Array, factors, weight
from journeyman.stats.canary import start_weight
from journeyman.stats.watch import decay_factors

NEVER = 10**9


@dataclass
class Ends:
    """When each canary was promoted or rolled back: the number of conversations; NEVER if it was not.

    A canary ends with the first of both, so at least one of them is NEVER.
    """

    promoted: np.ndarray
    rolled_back: np.ndarray


@dataclass
class Stream:
    """Conversations of many canaries; each array is [canaries, conversations], shares may be [conversations]."""

    student: np.ndarray
    share: np.ndarray
    failed: np.ndarray


def draw(
    rng: np.random.Generator,
    canaries: int,
    conversations: int,
    share: float | Array,
    of_student: float | Array,
    of_teacher: float | Array,
) -> Stream:
    """Conversations that fail as a whole, with rates by arm: numbers, [conversations] or [canaries, conversations]."""
    size = canaries, conversations
    shares = np.broadcast_to(np.asarray(share, dtype=float), size)
    student = rng.random(size) < shares
    rate = np.where(student, np.broadcast_to(of_student, size), np.broadcast_to(of_teacher, size))
    return Stream(student, shares, (rng.random(size) < rate).astype(float))


def run(
    stream: Stream,
    alpha: float = 0.05,
    margin: float = 0.05,
    least: int = 30,
    *,
    promote: bool = True,
    roll_back: bool = True,
) -> Ends:
    """Runs all canaries to their ends. `promote=False` goes on after a promotion, likewise `roll_back`."""
    canaries, conversations = stream.student.shape
    students, shares, parts = (np.ascontiguousarray(one.T) for one in (stream.student, stream.share, stream.failed))
    ends = Ends(np.full(canaries, NEVER), np.full(canaries, NEVER))
    left = np.arange(canaries)
    better, worse, late = (np.full((canaries, len(FRACTIONS)), start) for start in (1.0, 1.0, 0.0))
    failed_in_all, differences, weights = (np.zeros(canaries) for _ in range(3))
    seen = np.zeros(canaries, dtype=int)
    halves = [(np.zeros(canaries), np.zeros(canaries))] * 2
    older_n = 0
    for n in range(conversations):
        student, share, failed = students[n, left], shares[n, left], parts[n, left]
        guess = failed_in_all / (n + 20)
        better *= factors(student, share, failed, guess, margin)
        against = factors(~student, 1 - share, failed, guess, -margin)
        worse *= against
        if n:
            late += start_weight(n)
            late *= against
        stake = weight(share, margin)
        differences += stake * (failed - guess) * np.where(student, 1 / share, -1 / (1 - share))
        weights += stake
        failed_in_all += failed
        seen += student
        if n + 1 >= 2 * max(1, older_n):
            halves, older_n = [halves[1], (weights.copy(), differences.copy())], n + 1

        bad = (0.5 * worse + late) @ WEIGHTS >= 1 / alpha
        newer = differences - halves[0][1] <= margin * (weights - halves[0][0])
        good = ~bad & (seen >= least) & (better @ WEIGHTS >= 1 / alpha) & newer
        for verdict, made in ((ends.rolled_back, bad), (ends.promoted, good)):
            verdict[left[made]] = np.minimum(verdict[left[made]], n + 1)
        going = ~((bad & roll_back) | (good & promote))
        if not going.all():
            left, seen = left[going], seen[going]
            better, worse, late = better[going], worse[going], late[going]
            failed_in_all, differences, weights = failed_in_all[going], differences[going], weights[going]
            halves = [(one[going], other[going]) for one, other in halves]
        if not len(left):
            break
    return ends


def alarms(failed: Array, most_failed: float, alpha: float, horizon: int) -> np.ndarray:
    """When each watch raised its alarm; `failed` is [watches, conversations]."""
    capitals = np.zeros((len(failed), len(FRACTIONS)))
    ends = np.full(len(failed), NEVER)
    for n in range(failed.shape[1]):
        capitals = np.minimum(1e300, (capitals + 1 / horizon) * decay_factors(failed[:, n], most_failed))
        ends[(capitals @ WEIGHTS >= 1 / alpha) & (ends == NEVER)] = n + 1
    return ends


def misses(stream: Stream, truth: Array, alpha: float = 0.05, margin: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Whether the running mean difference, `truth` [conversations], was ever below or above the confidence sequence.

    The share has to be the same everywhere.
    """
    canaries, conversations = stream.student.shape
    share = float(stream.share[0, 0])
    below, above = np.zeros(canaries, dtype=bool), np.zeros(canaries, dtype=bool)
    better, worse = np.ones((canaries, len(FRACTIONS))), np.ones((canaries, len(FRACTIONS)))
    failed_in_all = np.zeros(canaries)
    stake_better = FRACTIONS * weight(share, margin)
    stake_worse = FRACTIONS * weight(1 - share, -margin)
    for n in range(conversations):
        student, shares, failed = stream.student[:, n], stream.share[:, n], stream.failed[:, n]
        guess = failed_in_all / (n + 20)
        better *= factors(student, shares, failed, guess, margin)
        worse *= factors(~student, 1 - shares, failed, guess, -margin)
        failed_in_all += failed
        above |= better @ (WEIGHTS * (1 + stake_better * (margin - truth[n])) ** -(n + 1)) >= 1 / alpha
        below |= worse @ (WEIGHTS * (1 + stake_worse * (truth[n] - margin)) ** -(n + 1)) >= 1 / alpha
    return below, above
