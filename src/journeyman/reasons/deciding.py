"""Why a role is deployed or not, and notes on how the verdict was reached. Advice is in advice.py."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason

# --- the plan's rules: measured and required values ---


@dataclass(frozen=True)
class SuccessSeen(Reason, code="success_seen"):
    """`low`, `high` and `asked` (the required share) are from 0 to 1; `effective`: the rows' effective number."""

    passed: int
    rows: int
    low: float
    high: float
    effective: float
    unscored: int
    asked: float

    def sentence(self) -> str:
        seen = f"{self.passed} of {self.rows} ({self.low:.0%}–{self.high:.0%}), required ≥ {self.asked * 100:g}%"
        if self.effective < self.rows:
            seen += f"; some rows are related, so together they count as {self.effective:.1f}"
        return f"{seen}; {self.unscored} rows unscored" if self.unscored else seen


@dataclass(frozen=True)
class SuccessNotKnown(Reason, code="success_not_known"):
    unscored: int
    asked: float

    def sentence(self) -> str:
        why = f"{self.unscored} rows unscored" if self.unscored else "no test rows"
        return f"{why}, required ≥ {self.asked * 100:g}%"


@dataclass(frozen=True)
class LatencySeen(Reason, code="latency_seen"):
    """Seconds. `high` is the upper end of the mean's interval; None if there are too few `answers` for one."""

    mean: float
    high: float | None
    answers: int
    limit: float

    def sentence(self) -> str:
        end = f"{self.answers} answers, too few for an interval" if self.high is None else f"up to {self.high:.2f}"
        return f"{self.mean:.2f} ({end}), limit {self.limit:g} s mean"


@dataclass(frozen=True)
class LatencyNotMeasured(Reason, code="latency_not_measured"):
    says = "not measured, limit {limit:g} s mean"
    limit: float


@dataclass(frozen=True)
class MemorySeen(Reason, code="memory_seen"):
    """10^9 bytes."""

    says = "{peak:.2f}, limit {limit:g} GB peak"
    peak: float
    limit: float


@dataclass(frozen=True)
class MemoryNotMeasured(Reason, code="memory_not_measured"):
    says = "not measured, limit {limit:g} GB peak"
    limit: float


@dataclass(frozen=True)
class AgainstTeacher(Reason, code="against_teacher"):
    """The difference from the teacher's success rate with its interval, and the margin allowed; from 0 to 1."""

    says = "{difference:+.0%} ({low:+.0%} to {high:+.0%}) compared with the teacher, required ≥ -{margin:.1%}"
    difference: float
    low: float
    high: float
    margin: float


@dataclass(frozen=True)
class NotComparedWithTeacher(Reason, code="not_compared_with_teacher"):
    says = "no row was scored for both, required ≥ -{margin:.1%}"
    margin: float


@dataclass(frozen=True)
class RegressionSeen(Reason, code="regression_seen"):
    """Passing answers of tuned and base, and the share that may be lost; `p_value` is None if it is not known."""

    tuned: int
    base: int
    answers: int
    lost: int
    won: int
    p_value: float | None
    margin: float

    def sentence(self) -> str:
        chance = f", p {self.p_value:.2g}" if self.p_value is not None and self.lost else ""
        return (
            f"{self.tuned} of {self.answers}, base {self.base}; lost {self.lost}, won {self.won}{chance}; "
            f"allowed drop {self.margin:.0%}"
        )


@dataclass(frozen=True)
class TemplateWithoutTools(Reason, code="template_without_tools"):
    says = "the base's chat template does not support tools"


# --- notes on the evaluation ---


@dataclass(frozen=True)
class LookedBefore(Reason, code="looked_before"):
    says = (
        "this is look {look} at the same held-out test set; because repeated looks make a pass by luck more likely, "
        "each role's intervals are at {confidence:.2%}; new logs, or another curate.seed before the next adapter is "
        "trained, give a fresh test set"
    )
    look: int
    confidence: float


@dataclass(frozen=True)
class JudgeAgrees(Reason, code="judge_agrees"):
    """How often the judge agrees with the other checks; `low` and `high`: the interval, None if it is not known."""

    role: str
    agree: int
    answers: int
    low: float | None
    high: float | None
    too_kind: int
    too_strict: int

    def sentence(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.0%}–{self.high:.0%})"
        return (
            f"{named(self.role)}: the judge agrees with the other checks on {self.agree} of {self.answers} answers"
            f"{interval}; it is too lenient on {self.too_kind}, too strict on {self.too_strict}"
        )


@dataclass(frozen=True)
class ServerPromptsUnknown(Reason, code="server_prompts_unknown"):
    says = "{url} does not say which token ids it makes of prompts: they were not compared with those of training"
    url: str


@dataclass(frozen=True)
class ServerWeightsUnknown(Reason, code="server_weights_unknown"):
    says = "{url} returns no log probabilities of prompts: its weights were not compared with those that were trained"
    url: str


@dataclass(frozen=True)
class Unprotected(Reason, code="unprotected"):
    says = "model-written code ran without a sandbox (evaluate.unsafe_exec)"
