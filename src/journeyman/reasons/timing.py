"""Reasons why the plan's time was not measured."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class MeasuringIsOff(Reason, code="measuring_is_off"):
    says = "plan.measure_s is 0"


@dataclass(frozen=True)
class NothingToMeasure(Reason, code="nothing_to_measure"):
    says = "there are no training rows, or no base that could be loaded"


@dataclass(frozen=True)
class DoesNotFitToMeasure(Reason, code="does_not_fit_to_measure"):
    says = "training does not fit in memory"


@dataclass(frozen=True)
class TooShortToMeasure(Reason, code="too_short_to_measure"):
    says = "training takes about {seconds:.1f} s, less than measuring would"
    seconds: float


@dataclass(frozen=True)
class StepTooLong(Reason, code="step_too_long"):
    """Seconds: to load the base and to compute its shortest pack; plan.measure_s."""

    says = "loading the base and one step alone take about {seconds:.0f} s, more than plan.measure_s = {budget:g}"
    seconds: float
    budget: float


@dataclass(frozen=True)
class TrainsOnCluster(Reason, code="trains_on_cluster"):
    says = "training runs on the cluster {address}"
    address: str


@dataclass(frozen=True)
class AnswersElsewhere(Reason, code="answers_elsewhere"):
    says = "a server answers, not an engine of this machine"


@dataclass(frozen=True)
class AnswersNotMeasured(Reason, code="answers_not_measured"):
    says = "no answers could be measured: {why}"
    why: str


@dataclass(frozen=True)
class EndpointsNotMeasured(Reason, code="endpoints_not_measured"):
    """`names`: of evaluate.endpoints, separated by commas."""

    says = "without the answers of other machines, whose speed is not known: {names}"
    names: str


@dataclass(frozen=True)
class BisectNotMeasured(Reason, code="bisect_not_measured"):
    says = "steps of training or answers of the engine were not measured"


@dataclass(frozen=True)
class TrialStepsFailed(Reason, code="trial_steps_failed"):
    says = "the process that tried some steps failed: {why}"
    why: str
