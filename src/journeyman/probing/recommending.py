"""What a probe's figures advise, by rules in a fixed order. The first that applies decides.

1. check: copied answers reach the threshold, so the checks or the rows are too easy to tell anything.
2. prompt: the base reaches it with its bare prompt, or with examples in it.
3. tune: a model tuned on a part of the rows reaches it, or the prediction for all rows does.
4. prompt: a prompt beats the model tuned on the most rows, and what is predicted for all rows is not better.
5. more data: the prediction stays below the threshold, and more rows are shown to help.
6. stop: it stays below, and not even many times the rows would reach it.
7. cannot tell: everything else, with what it leans to and the rows that would tell.

"Reaches" means that the whole interval is at or above the threshold, as in the decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from journeyman.manifests import ArmSummary, Paired, Rate, RoleSummary
from journeyman.probing.record import Advice, Prediction, Recommendation
from journeyman.reasons import Reason
from journeyman.reasons import probing as why
from journeyman.records import BASE, FEW_SHOT, TEACHER
from journeyman.stats.learning_curve import RUNS_DIFFER, LearningCurve
from journeyman.stats.rates import rows_needed

COPY = "copy"
"""The arm that copies the answer of the most similar training task."""
WITHIN_REASON = 16
"""Times the rows that there are: more are not asked for."""
_LOSS_FALLS = 0.1
"""By which share the validation loss must be lower with the most rows than with the fewest, to fall."""


@dataclass(frozen=True)
class Tuned:
    """A model that was tuned on a part of the rows.

    Attributes:
        rows: of the role.
        loss: the best on the validation rows; None: not known.
    """

    arm: str
    rows: int
    loss: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What a probe found about a role.

    Attributes:
        summary: with every arm compared with every other one.
        tuned: by rows, fewest first.
        curve: None: too little to predict from.
        train_rows: all of them.
        similarity: median of the tasks whose copied answers pass; None: none passes.
    """

    summary: RoleSummary
    tuned: Sequence[Tuned]
    curve: LearningCurve | None
    train_rows: int
    threshold: float
    confidence: float
    similarity: float | None = None

    @property
    def predicted(self) -> Prediction | None:
        """The success of a run on all rows; None: too little to predict from, or success may appear suddenly.

        Rows that not every part has a score for may be failures, so they lower the lower end, as in `counted`.
        """
        if self.curve is None or self.sudden is not None:
            return None
        found = self.curve.at(self.train_rows, self.confidence)
        scored = self.curve.answers / max(1, self.summary.rows)
        return Prediction(low=found.low * min(1.0, scored), likely=found.likely, high=found.high)

    def rate(self, arm: str) -> Rate | None:
        """An arm's success; None if it did not answer every row, as examples in the prompt of some roles only."""
        found = self.summary.arms.get(arm)
        rate = None if found is None else counted(found)
        return rate if found is not None and rate is not None and rate.n + found.unscored == self.summary.rows else None

    def against(self, arm: str, other: str) -> Paired | None:
        """The arm compared with another on the same rows; None if they have none in common."""
        found = self.summary.versus.get(arm, {}).get(other)
        return None if found is None or found.difference is None else found

    @property
    def last(self) -> Tuned | None:
        return self.tuned[-1] if self.tuned else None

    @property
    def gain(self) -> Paired | None:
        """The model tuned on the most rows compared with the base."""
        return self.against(self.last.arm, BASE) if self.last is not None else None

    @property
    def sudden(self) -> why.LossStillFalls | None:
        """If nothing that the checks show is learned yet, although the validation loss falls."""
        if self.last is None or (self.gain is not None and self.gain.low is not None and self.gain.low > 0):
            return None
        first, last = self.tuned[0].loss, self.last.loss
        falls = first is not None and last is not None and last < (1 - _LOSS_FALLS) * first
        return why.LossStillFalls(self.last.rows, first, last) if falls and first and last else None

    @property
    def growth(self) -> Paired | None:
        """The model tuned on the most rows compared with the one tuned on the fewest; None if that is the same.

        The interval also holds that two trainings on equally many rows differ.
        """
        if len(self.tuned) < 2:
            return None
        last = self.tuned[-1].arm
        found, rate = self.against(last, self.tuned[0].arm), self.summary.arms[last].success
        if found is None or rate is None or found.difference is None or found.low is None or found.high is None:
            return found
        middle = min(max(rate.passed / rate.n - found.difference / 2, 0.0), 1.0)
        runs = (
            NormalDist().inv_cdf(0.5 + self.confidence / 2) * RUNS_DIFFER * middle * (1 - middle)
        )  # from log odds to a rate
        low = found.difference - math.hypot(found.difference - found.low, runs)
        high = found.difference + math.hypot(found.high - found.difference, runs)
        return found.model_copy(update={"low": max(low, -1.0), "high": min(high, 1.0)})

    @property
    def rises(self) -> bool:
        """More rows are shown to help."""
        growth = self.growth
        return growth is not None and growth.low is not None and growth.low > 0


def counted(arm: ArmSummary) -> Rate | None:
    """An arm's success; answers that could not be scored may be wrong, so they widen the interval downwards."""
    rate = arm.success
    if rate is None or not arm.unscored:
        return rate
    return rate.model_copy(update={"low": rate.low * rate.n / (rate.n + arm.unscored)})


def recommend(of: Evidence) -> Recommendation:
    """Applies the rules; a note on the teacher or on copies is added to whatever they say."""
    found = _decided(of)
    notes = [one.record() for one in _notes(of) if one.code not in {reason.code for reason in found.reasons}]
    return found.model_copy(update={"reasons": [*found.reasons, *notes]})


def _decided(of: Evidence) -> Recommendation:
    if not any(of.rate(arm) for arm in of.summary.arms if arm not in (TEACHER, COPY)):
        return _advise("cannot_tell", why.NothingScored(of.summary.rows))
    copied = of.rate(COPY)
    if copied is not None and copied.low >= of.threshold:
        return _advise("check", why.CopiesReach(*_of(COPY, copied, of.threshold), of.similarity or 0.0))
    for arm in (BASE, FEW_SHOT):
        rate = of.rate(arm)
        if rate is not None and rate.low >= of.threshold:
            return _advise("prompt", why.PromptReaches(*_of(arm, rate, of.threshold)))
    for one in of.tuned:
        rate = of.rate(one.arm)
        if rate is not None and rate.low >= of.threshold:
            return _advise("tune", why.TunedReaches(*_of(one.arm, rate, of.threshold), one.rows), _predicted(of))
    predicted = of.predicted
    if predicted is not None and predicted.low >= of.threshold:
        return _advise("tune", _predicted(of), _grows(of))
    return _better_prompt(of, predicted) or _below(of, predicted)


def _better_prompt(of: Evidence, predicted: Prediction | None) -> Recommendation | None:
    """If a prompt is shown to beat what was tuned, and even the upper end of the prediction is not above it."""
    if of.last is None or predicted is None:
        return None
    for arm in (FEW_SHOT, BASE):
        rate, pair = of.rate(arm), of.against(arm, of.last.arm)
        if rate is None or pair is None or pair.difference is None or pair.low is None or pair.low <= 0:
            continue
        if predicted.high <= rate.passed / rate.n:
            beats = why.PromptBeatsTuned(
                arm, of.last.rows, pair.difference, pair.low, pair.high or pair.low, of.threshold
            )
            return _advise("prompt", beats, _predicted(of))
    return None


def _below(of: Evidence, predicted: Prediction | None) -> Recommendation:
    if of.sudden is not None:
        return _cannot_tell("tune", of.sudden)
    if predicted is None or of.curve is None:
        return _advise("cannot_tell", why.NotPredicted(len(of.tuned)), *_too_few(of, None))
    if predicted.high >= of.threshold:
        leans: Advice = "tune" if predicted.likely >= of.threshold else "more_data" if _may_grow(of) else "stop"
        return _cannot_tell(leans, _predicted(of), _grows(of), *_too_few(of, predicted.likely))
    needed = _rows_for(of)
    if of.rises:
        return _advise("more_data", _predicted(of), _grows(of), needed)
    if needed is not None and needed.low is not None:
        return _cannot_tell("more_data", _predicted(of), _grows(of), needed, *_too_few(of, predicted.likely))
    return _stop(of)


def _stop(of: Evidence) -> Recommendation:
    """More rows won't do."""
    last = of.tuned[-1]
    rate, gain = of.rate(last.arm), of.gain
    if rate is not None and gain is not None and gain.low is not None and gain.low > 0:
        return _advise("stop", why.FlatBelow(last.rows, rate.low, rate.high, of.threshold), _predicted(of), _grows(of))
    nothing = None
    if gain is not None and gain.difference is not None and gain.low is not None and gain.high is not None:
        nothing = why.LearnsNothing(last.rows, gain.difference, gain.low, gain.high)
    return _advise("stop", nothing, _predicted(of), _grows(of))


def _may_grow(of: Evidence) -> bool:
    growth = of.growth
    return growth is not None and growth.difference is not None and growth.difference > 0


def _rows_for(of: Evidence) -> why.RowsForThreshold | None:
    if of.curve is None:
        return None
    most = WITHIN_REASON * of.train_rows
    needed = of.curve.rows_for(of.threshold, of.confidence, most)
    return why.RowsForThreshold(of.train_rows, needed.low, needed.likely, most, of.threshold)


def _predicted(of: Evidence) -> why.Predicted | None:
    one = of.predicted
    return None if one is None else why.Predicted(of.train_rows, one.low, one.likely, one.high, of.threshold)


def _grows(of: Evidence) -> Reason | None:
    """How the success changes with the rows, as it was measured."""
    one = of.growth
    if one is None or one.difference is None or one.low is None or one.high is None:
        return None
    kind = why.StillRising if of.rises else why.NotRising
    return kind(of.tuned[0].rows, of.tuned[-1].rows, one.difference, one.low, one.high)


def _too_few(of: Evidence, likely: float | None) -> list[Reason]:
    """Whether more validation rows would tell, if the success is as predicted, or else as it is with most rows."""
    rate = None if of.last is None else of.rate(of.last.arm)
    rate = rate or of.rate(FEW_SHOT) or of.rate(BASE)
    if rate is None:
        return []
    expected = rate.passed / rate.n if likely is None else likely
    needed = rows_needed(expected, of.threshold, of.confidence)
    if likely is not None and needed is not None and rate.effective_n >= needed:
        return [why.CurveTooShort()]
    return [why.TooFewRowsToTell(of.summary.rows, rate.effective_n, needed)]


def _notes(of: Evidence) -> list[Reason]:
    notes: list[Reason] = []
    teacher, copied = of.rate(TEACHER), of.rate(COPY)
    if teacher is not None and teacher.high < of.threshold:
        notes.append(why.TeacherBelow(*_of(TEACHER, teacher, of.threshold)))
    unscored = max((of.summary.arms[one.arm].unscored for one in of.tuned if one.arm in of.summary.arms), default=0)
    if unscored:
        notes.append(why.SomeUnscored(of.summary.rows, unscored))
    if copied is not None and copied.passed / copied.n >= of.threshold > copied.low:
        notes.append(why.CopiesAlso(*_of(COPY, copied, of.threshold)))
    return notes


def _of(arm: str, rate: Rate, threshold: float) -> tuple[str, int, int, float, float, float]:
    return arm, rate.passed, rate.n, rate.low, rate.high, threshold


def _advise(advice: Advice, *reasons: Reason | None) -> Recommendation:
    return Recommendation(advice=advice, reasons=[one.record() for one in reasons if one is not None])


def _cannot_tell(leans: Advice, *reasons: Reason | None) -> Recommendation:
    return _advise("cannot_tell", *reasons).model_copy(update={"leans": leans})
