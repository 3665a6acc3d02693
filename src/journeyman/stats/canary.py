"""Is the student good enough to answer every conversation? A test that may be looked at after each of them.

Every conversation goes to the student with probability `share`, otherwise to the teacher, and gets a failed part from 0
to 1. After each, the verdict is

- roll back: it is shown at level alpha that the student's failure rate exceeds the teacher's by more than the margin;
- promote: the opposite is shown, the newer half does not contradict, and `least` of its conversations were seen;
- go on: neither.

Method: bets (betting.py) against "student - teacher >= margin" for the promotion. For the rollback, half of the capital
bets against "student - teacher <= margin" from the first conversation on, and the other half is spread over bets that
start with each later conversation, so that a fault is noticed after a long good time too (e-detector: Shin, Ramdas &
Rinaldo, 2022). The n-th later start has the weight K / ((K + n - 1) (K + n)) of that half, K = 512. All weights add up
to 1, so the probability of ever rolling back without cause is at most alpha, over all time. Bets of one fraction win
and lose together wherever they started, so their sum follows one recursion (as Shiryaev's and Roberts' does), and
nothing needs to be pruned.

What is guaranteed, however both failure rates drift, together or apart:

- it is promoted while the running mean of "student - teacher" is at least the margin with probability alpha at most;
- it is rolled back although this mean is at most the margin over every stretch that ends now, likewise.

What is assumed: the arm is drawn with the stated probability, independently of everything else, and stays for the
whole conversation; the share is fixed before the draw and may depend on everything before. Conversations are observed
in the order in which they *began* (routing/conversations.py): in the order of their ends, the next arm is no coin of
known probability, and a student whose failures take longer looks too good. One arm's conversations don't change the
other's outcomes. Results are missing equally often in both arms; while the opposite is shown (by more than the
margin, at level alpha), nothing is promoted. Not covered: users who return in a new conversation because the last one
failed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np

from journeyman.errors import InputError
from journeyman.reasons import Reason, routing
from journeyman.stats.betting import FRACTIONS, WEIGHTS, Array, factors, log_mixture, upper_end, upper_rate, weight

Arm = Literal["student", "teacher"]
Verdict = Literal["promote", "go_on", "roll_back"]

_SPREAD = 512  # K of the starts: about as many conversations as a canary has
_GUESS_ROWS = 20  # the guess of the failed part begins as if so many conversations had been good
_MOST = 1e300  # a capital is not counted beyond this; less is always valid


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reason: Reason


@dataclass(frozen=True)
class Interval:
    """Each end is ever wrong with probability at most alpha, so both hold together with 1 - 2 alpha."""

    low: float
    high: float


def _nothing() -> Array:
    return np.zeros(len(FRACTIONS))


@dataclass
class Counts:
    """Conversations of one arm."""

    scored: int = 0
    unscored: int = 0
    failed: float = 0.0
    """The sum of the failed parts."""


@dataclass
class Canary:
    """The state of one canary; `as_dict` and `from_dict` continue it exactly where it was.

    Args:
        alpha: the probability of a wrong promotion, and that of a wrong rollback.
        margin: by how much the student's failure rate may exceed the teacher's, from 0 to 1.
        least: the number of the student's conversations with a result before which nothing is promoted.
    """

    alpha: float = 0.05
    margin: float = 0.05
    least: int = 30
    student: Counts = field(default_factory=Counts)
    teacher: Counts = field(default_factory=Counts)
    better: Array = field(default_factory=_nothing)
    """Logarithms of the capitals that bet on "not worse", one for each of FRACTIONS."""
    worse: Array = field(default_factory=_nothing)
    late: Array = field(default_factory=_nothing)
    """Capitals (not logarithms) of all bets on "worse" that started later, by fraction, with their weights."""
    missing_student: Array = field(default_factory=_nothing)
    """Logarithms of the capitals that bet on "the student's results are missing more often by the margin"."""
    missing_teacher: Array = field(default_factory=_nothing)
    better_weights: float = 0.0
    worse_weights: float = 0.0
    differences: float = 0.0
    """The sum of y, each with its weight; divided by `better_weights`, an unbiased estimate."""
    halves: list[list[float]] = field(default_factory=lambda: [[0, 0.0, 0.0], [0, 0.0, 0.0]])
    """n, `better_weights` and `differences` at two moments, of which the older one begins the newer half."""

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 <= self.margin < 1 and self.least >= 0):
            raise ValueError(
                "alpha lies between 0 and 1, the margin is at least 0 and below 1, least is no negative number"
            )

    def observe(self, arm: Arm, share: float, failed: float | None) -> Decision:
        """One conversation, in the order in which they began.

        Args:
            share: the student's share when the conversation began.
            failed: the part of it that failed, from 0 to 1; None if it has no result.

        Raises:
            ValueError: a share that leaves no choice, or a failed part outside of 0 to 1.
        """
        if arm not in ("student", "teacher") or not 0 < share < 1 or not (failed is None or 0 <= failed <= 1):
            raise ValueError(f"no conversation of a canary: {arm}, share {share}, failed {failed}")
        counts = self.student if arm == "student" else self.teacher
        first, of_student = np.array(arm == "student"), np.array(share)
        missing, never = np.array(float(failed is None)), np.array(0.0)
        self.missing_student += np.log(factors(~first, 1 - of_student, missing, never, -self.margin))
        self.missing_teacher += np.log(factors(first, of_student, missing, never, -self.margin))
        if failed is None:
            counts.unscored += 1
            return self.decision()
        guess = np.array((self.student.failed + self.teacher.failed) / (self.scored + _GUESS_ROWS))
        part = np.array(failed)
        self.better += np.log(factors(first, of_student, part, guess, self.margin))
        against = factors(~first, 1 - of_student, part, guess, -self.margin)
        self.worse += np.log(against)
        if self.scored:
            self.late = np.minimum(_MOST, (self.late + start_weight(self.scored)) * against)
        y = (failed - float(guess)) * (1 / share if first else -1 / (1 - share))
        self.differences += float(weight(share, self.margin)) * y
        self.better_weights += float(weight(share, self.margin))
        self.worse_weights += float(weight(1 - share, -self.margin))
        counts.scored += 1
        counts.failed += failed
        if self.scored >= 2 * max(1, self.halves[1][0]):
            self.halves = [self.halves[1], [self.scored, self.better_weights, self.differences]]
        return self.decision()

    @property
    def scored(self) -> int:
        return self.student.scored + self.teacher.scored

    @property
    def estimate(self) -> float:
        """The mean difference of the failure rates, student - teacher, from -1 to 1; 0 at the start."""
        return _clipped(self.differences, self.better_weights)

    @property
    def newer_estimate(self) -> float:
        """The same for the newer part: between half and three quarters of all conversations."""
        _, weights, differences = self.halves[0]
        return _clipped(self.differences - differences, self.better_weights - weights)

    @property
    def evidence(self) -> float:
        """The capital that bet on "not worse by the margin"."""
        return _capital(self.better)

    @property
    def evidence_against(self) -> tuple[float, float]:
        """The capitals that bet on "worse than the margin": from the first conversation, and from later ones."""
        return 0.5 * _capital(self.worse), float(self.late @ WEIGHTS)

    def decision(self) -> Decision:
        needed = 1 / self.alpha
        from_start, later = self.evidence_against
        against = min(_MOST, from_start + later)
        if against >= needed:
            if from_start >= later:
                return Decision("roll_back", routing.StudentWorse(self.estimate, self.margin, against, needed))
            return Decision("roll_back", routing.StudentBecameWorse(self.newer_estimate, self.margin, against, needed))
        if self.student.scored < self.least:
            return Decision("go_on", routing.FewConversations(self.student.scored, self.least))
        if self.evidence < needed:
            return Decision("go_on", routing.NothingShown(self.evidence, needed))
        if max(_capital(self.missing_student), _capital(self.missing_teacher)) >= needed:
            return Decision("go_on", routing.UnscoredUnequally(self.student.unscored, self.teacher.unscored))
        if self.newer_estimate > self.margin:
            return Decision("go_on", routing.NewerHalfWorse(self.newer_estimate, self.margin))
        return Decision("promote", routing.StudentNotWorse(self.estimate, self.margin, self.evidence, needed))

    def difference(self) -> Interval:
        """A confidence sequence of the running mean difference, student - teacher; promotion needs `high` <= margin."""
        high = upper_end(self.better, self.better_weights, self.scored, self.margin, self.alpha)
        return Interval(-upper_end(self.worse, self.worse_weights, self.scored, -self.margin, self.alpha), high)

    def failure_rate(self, arm: Arm) -> Interval:
        """A confidence sequence of the running mean of an arm's failed parts, over its own conversations."""
        counts = self.student if arm == "student" else self.teacher
        low = 1 - upper_rate(counts.scored - counts.failed, counts.scored, self.alpha)
        return Interval(low, upper_rate(counts.failed, counts.scored, self.alpha))

    def most_failed(self) -> float:
        """The rate to hold a promoted student to (watch.py): what was shown, and at least the rate seen + margin."""
        seen = self.student.failed / max(1, self.student.scored)
        return max(self.failure_rate("student").high, min(1.0, seen + self.margin))

    def to_json(self) -> str:
        return json.dumps({one.name: _plain(getattr(self, one.name)) for one in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InputError if the text is no state of a canary of this version."""
        try:
            state: dict[str, Any] = json.loads(text)
            for name in ("student", "teacher"):
                state[name] = Counts(**state[name])
            for name in ("better", "worse", "late", "missing_student", "missing_teacher"):
                state[name] = np.array(state[name], dtype=np.float64)
                if state[name].shape != FRACTIONS.shape or not np.isfinite(state[name]).all():
                    raise ValueError(name)
            if set(state) != {one.name for one in fields(cls)}:
                raise ValueError("its keys")
            return cls(**state)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"the state of a canary cannot be read: {error}", "start a new canary") from error


def start_weight(n: int | Array) -> float | Array:
    """The weight with which the bets begin that start after n conversations, n >= 1; all of them add up to one half."""
    return 0.5 * _SPREAD / ((_SPREAD + n - 1) * (_SPREAD + n))


def _capital(logs: Array) -> float:
    return math.exp(min(690.0, float(log_mixture(logs))))


def _clipped(total: float, weights: float) -> float:
    return max(-1.0, min(1.0, total / weights)) if weights > 0 else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return vars(value) if isinstance(value, Counts) else value
