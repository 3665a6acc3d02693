"""What the teacher, the student or the student in shadow answered, counted answer by answer."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from journeyman.monitoring.report import Answers, Latency, Share, Unit
from journeyman.routing.exchanges import Exchange
from journeyman.stats.describe import percentile
from journeyman.stats.rates import wilson

CONFIDENCE = 0.95
LEAST_ERROR, TOO_MANY = 500, 429


@dataclass
class UnitCount:
    """What is known of a conversation, or of a request without one.

    Attributes:
        scored, failed: answers by checks and errors.
        heard, disliked: answers with feedback, which are not among those.
        told: score of the whole, by feedback.
    """

    scored: int = 0
    failed: float = 0.0
    heard: int = 0
    disliked: float = 0.0
    told: float | None = None

    def passed(self, *, judged: bool) -> float | None:
        """The part that succeeded; None: nothing says."""
        of, failed = self.heard, self.disliked
        if judged:
            of, failed = of + self.scored, failed + self.failed
        return self.told if self.told is not None else 1.0 - failed / of if of else None


@dataclass
class Answerer:
    """What one of both answered, in the making.

    Attributes:
        judged: whether something judges every answer, so that errors count as failures. Otherwise only errors would
            be known, and each known answer would be a failure.
        units: conversation, or "" and the number of a request without one → how it went.
        known: of conversations that are over, the failed parts.
    """

    judged: bool
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first: array[int] = field(default_factory=lambda: array("q"))
    whole: array[int] = field(default_factory=lambda: array("q"))
    prompt_tokens: int = 0
    answer_tokens: int = 0
    counted: int = 0
    units: dict[tuple[str, int], UnitCount] = field(default_factory=dict)
    known: list[float] = field(default_factory=list)
    named: int = 0

    def take(self, one: Exchange, *, timed: bool = True) -> None:
        self.requests += 1
        if error := error_of(one):
            self.errors[error] += 1
        if timed and one.outcome == "complete" and (one.status is None or one.status < 400):
            self.whole.append(one.duration_ms)
            if one.first_ms is not None:
                self.first.append(one.first_ms)
        if one.prompt_tokens or one.answer_tokens:
            self.counted += 1
            self.prompt_tokens += one.prompt_tokens
            self.answer_tokens += one.answer_tokens

    def unit(self, one: Exchange) -> UnitCount:
        return self.units.setdefault((one.conversation, 0 if one.conversation else one.seq), UnitCount())

    def made(self) -> Answers:
        return Answers(
            requests=self.requests, success=self._success(), errors=dict(self.errors.most_common()),
            first=_latency(self.first), whole=_latency(self.whole), prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens, counted=self.counted,
        )  # fmt: skip

    def _success(self) -> Share | None:
        passed, named = [1.0 - failed for failed in self.known], self.named
        for (conversation, _), one in self.units.items():
            if (part := one.passed(judged=self.judged)) is not None:
                passed.append(part)
                named += bool(conversation)
        return share_of(sum(passed), len(passed), "conversations" if named else "requests")


def share_of(part: float, of: int, unit: Unit = "requests") -> Share | None:
    """A share with its interval; None if it is of nothing."""
    if not of:
        return None
    low, high = wilson(part, of, CONFIDENCE)
    return Share(part=part, of=of, low=low, high=high, unit=unit)


def error_of(one: Exchange) -> str:
    """The code of an error; "" if the answer was none, or the recorder broke it off itself."""
    if one.outcome == "failed" or (one.outcome == "cut" and one.failed is not None):
        return one.outcome
    if one.status is not None and (one.status >= LEAST_ERROR or one.status == TOO_MANY):
        return f"status_{one.status}"
    return "slow" if one.why == "slow" else ""


def _latency(values: array[int]) -> Latency | None:
    p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return Latency(answers=len(values), p50=p50, p95=p95, p99=p99)
