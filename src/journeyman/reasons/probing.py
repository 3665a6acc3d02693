"""What a probe of the task found: reasons for prompting, tuning, more data or stopping. Rates and losses as measured on
validation rows; `low` and `high` are the ends of an interval."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason

PARTS = {"eighth": "an eighth", "quarter": "a quarter", "half": "half"}
"""Name of a part of the training rows → how it is said."""
_MANY_TIMES = 20
"""Nobody logs so many times the rows for a probe."""


def _range(low: float, high: float) -> str:
    return f"{low:.0%} to {high:.0%}"


def points(difference: float, low: float, high: float) -> str:
    """A difference of two rates with its interval, in points of a hundred."""
    return f"{100 * difference:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})"


@dataclass(frozen=True)
class _Reaches(Reason):
    """`arm`: who answered."""

    arm: str
    passed: int
    n: int
    low: float
    high: float
    threshold: float

    @property
    def seen(self) -> str:
        return f"passes {self.passed} of {self.n} rows ({_range(self.low, self.high)})"


@dataclass(frozen=True)
class CopiesReach(_Reaches, code="probe_copies_reach"):
    """`similarity`: median, from 0 to 1, of the tasks whose copied answers pass to those that they were copied from."""

    fix = (
        "Look for duplicates across sessions, for answers that leak into the prompt, and for checks that pass anything"
    )
    similarity: float

    def sentence(self) -> str:
        return (
            f"copying the answer of the most similar training task {self.seen}, which reaches {self.threshold:.0%} "
            f"without any model; those tasks share {self.similarity:.0%} of their word sequences: "
            + ("they repeat each other" if self.similarity >= 0.5 else "the checks are too easy")
        )


@dataclass(frozen=True)
class CopiesAlso(_Reaches, code="probe_copies_also"):
    """The rate is at or above the threshold, but its interval is not."""

    fix = CopiesReach.fix

    def sentence(self) -> str:
        return (
            f"copying the answer of the most similar training task {self.seen}: look at the checks before trusting any "
            "other figure"
        )


@dataclass(frozen=True)
class PromptReaches(_Reaches, code="probe_prompt_reaches"):
    fix = "Serve the base with this prompt; tune only for speed, or for a smaller prompt"

    def sentence(self) -> str:
        return f"{_ARMS.get(self.arm, self.arm)} {self.seen}, which reaches {self.threshold:.0%} without tuning"


@dataclass(frozen=True)
class TunedReaches(_Reaches, code="probe_tuned_reaches"):
    """`rows`: it was trained on."""

    fix = "Tune: journeyman run"
    rows: int

    def sentence(self) -> str:
        return f"tuned on only {self.rows:,} rows it {self.seen}, which reaches {self.threshold:.0%} already"


@dataclass(frozen=True)
class PromptBeatsTuned(Reason, code="probe_prompt_beats_tuned"):
    """`difference`: of the success, on the same rows; `rows`: of the most that were tuned on."""

    fix = "Work on the prompt rather than on tuning with this recipe, or take a larger base"
    arm: str
    rows: int
    difference: float
    low: float
    high: float
    threshold: float

    def sentence(self) -> str:
        return (
            f"{_ARMS.get(self.arm, self.arm)} is better than the base tuned on {self.rows:,} rows: "
            f"{points(self.difference, self.low, self.high)}, and all rows are not predicted to change that; "
            f"neither is shown to reach {self.threshold:.0%}"
        )


@dataclass(frozen=True)
class Predicted(Reason, code="probe_predicted"):
    """The prediction compared with the threshold. `rows`: all training rows."""

    rows: int
    low: float
    likely: float
    high: float
    threshold: float

    def sentence(self) -> str:
        where = (
            "reaches" if self.low >= self.threshold else "stays below" if self.high < self.threshold else "may reach"
        )
        return (
            f"tuned on all {self.rows:,} rows it is predicted to pass {_range(self.low, self.high)}, most likely about "
            f"{self.likely:.0%}, which {where} {self.threshold:.0%}"
        )


@dataclass(frozen=True)
class StillRising(Reason, code="probe_still_rising"):
    """`difference`: of the success of the most and the fewest rows tuned on."""

    fewest: int
    most: int
    difference: float
    low: float
    high: float

    def sentence(self) -> str:
        return (
            f"{self.most:,} training rows are better than {self.fewest:,}: "
            f"{points(self.difference, self.low, self.high)}; more rows still help"
        )


@dataclass(frozen=True)
class RowsForThreshold(Reason, code="probe_rows_for_threshold"):
    """`low`, `likely`: training rows; None: more than `most`."""

    fix = "Log more rows of this kind, then probe again"
    rows: int
    low: int | None
    likely: int | None
    most: int
    threshold: float

    def sentence(self) -> str:
        if self.low is None:
            return f"by this curve not even {self.most:,} training rows would reach {self.threshold:.0%}"
        about = f"more likely about {self.likely:,}" if self.likely is not None else f"more likely over {self.most:,}"
        return (
            f"by this curve {self.threshold:.0%} takes at least {self.low:,} training rows, {about}; there are "
            f"{self.rows:,}"
        )


@dataclass(frozen=True)
class NotRising(Reason, code="probe_not_rising"):
    """More rows were not shown to help: the difference may be nothing."""

    fewest: int
    most: int
    difference: float
    low: float
    high: float

    def sentence(self) -> str:
        return (
            f"{self.most:,} training rows are not shown to be better than {self.fewest:,}: "
            f"{points(self.difference, self.low, self.high)}"
        )


@dataclass(frozen=True)
class LearnsNothing(Reason, code="probe_learns_nothing"):
    """The tuned model is not shown to be better than the base."""

    fix = "Look at the failures, the recipe (journeyman plan) and the base: a larger one may learn what this one cannot"
    rows: int
    difference: float
    low: float
    high: float

    def sentence(self) -> str:
        return (
            f"tuned on {self.rows:,} rows it is not shown to be better than the base: "
            f"{points(self.difference, self.low, self.high)}"
        )


@dataclass(frozen=True)
class FlatBelow(Reason, code="probe_flat_below"):
    """Better than the base, but more rows bring nothing more."""

    fix = "Try a larger base or another recipe, or look at the rows that fail: more rows of this kind won't help"
    rows: int
    low: float
    high: float
    threshold: float

    def sentence(self) -> str:
        return (
            f"it has levelled off below {self.threshold:.0%}: tuned on {self.rows:,} rows it passes "
            f"{_range(self.low, self.high)}"
        )


@dataclass(frozen=True)
class LossStillFalls(Reason, code="probe_loss_still_falls"):
    """`rows`: the most that were tuned on; `first`, `last`: losses with the fewest and the most, in nats."""

    fix = "Tune on all rows and let the evaluation decide; more epochs may help as well"
    rows: int
    first: float
    last: float

    def sentence(self) -> str:
        return (
            f"tuned on {self.rows:,} rows it is not shown to be better than the base, but the validation loss still "
            f"falls ({self.first:.2f} with the fewest rows, {self.last:.2f} with the most): something is learned that "
            "the checks do not show yet. Success may appear suddenly, so it is not predicted"
        )


@dataclass(frozen=True)
class TeacherBelow(_Reaches, code="probe_teacher_below"):
    fix = "Look at the teacher's failures first: they are in the training rows as well"

    def sentence(self) -> str:
        return (
            f"the teacher itself {self.seen}, below {self.threshold:.0%}: a model that learns from it will hardly be "
            "better"
        )


@dataclass(frozen=True)
class TooFewRowsToTell(Reason, code="probe_too_few_rows"):
    """`effective`: independent rows that the rows count as; `needed`: rows that would tell; None: no number would."""

    fix = "Log more rows, or raise curate.val_share"
    rows: int
    effective: float
    needed: int | None

    def what_to_do(self) -> str:
        too_near = self.needed is None or self.needed > _MANY_TIMES * self.effective
        return (
            "Tune on all rows and let the evaluation decide: so many rows are not worth logging for this alone"
            if (too_near)
            else self.fix
        )

    def sentence(self) -> str:
        counted = "" if self.effective == self.rows else f", which count as {self.effective:.1f} independent ones,"
        enough = "" if self.needed is None else f"; if the success is as it looks, about {self.needed:,} would"
        return f"{self.rows} validation rows{counted} cannot tell{enough}"


@dataclass(frozen=True)
class CurveTooShort(Reason, code="probe_curve_too_short"):
    """There are enough rows, but how the curve goes on is open."""

    fix = "Tune on all rows and see, or raise --probe-budget if parts were left out"
    says = "the rows are enough, but how the curve goes on from the largest part is open"


@dataclass(frozen=True)
class NotPredicted(Reason, code="probe_not_predicted"):
    """`points`: parts of the rows that were tuned on and scored."""

    fix = "Raise --probe-budget, or log more rows"
    points: int

    def sentence(self) -> str:
        tried = "no part" if not self.points else "only one part" if self.points == 1 else "no different parts"
        return (
            f"success with all rows is not known: {tried} of the training rows could be tuned on, and a curve takes two"
        )


@dataclass(frozen=True)
class NothingScored(Reason, code="probe_nothing_scored"):
    fix = "Look at roles.NAME.checks in journeyman.toml, and at what they need; journeyman doctor lists all checks"
    says = "no answer to any of {rows} validation rows could be scored"
    rows: int


@dataclass(frozen=True)
class SomeUnscored(Reason, code="probe_some_unscored"):
    """`rows`: that were asked; `unscored`: the most answers of a tuned model that no check could score."""

    fix = NothingScored.fix
    says = "{unscored} of {rows} answers could not be scored, and may all be wrong"
    rows: int
    unscored: int


@dataclass(frozen=True)
class PartLeftOut(Reason, code="probe_part_left_out"):
    """A part of the training rows that was not tuned on; times in seconds."""

    fix = "Raise --probe-budget"
    part: str
    rows: int
    estimated_s: float
    budget_s: float

    def sentence(self) -> str:
        return (
            f"{PARTS.get(self.part, self.part)} of the rows ({self.rows:,}) was left out: with it, the curve would "
            f"take about {self.estimated_s:,.0f} s, more than {self.budget_s:,.0f} s"
        )


_ARMS = {"base": "the base with its bare prompt", "few-shot": "the base with examples in its prompt"}
