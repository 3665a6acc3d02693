"""Extrapolates measured steps to a whole training run, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.sizing.step_time import StepTime, Work


@dataclass(frozen=True)
class EpochWork:
    """What an epoch computes.

    Attributes:
        steps: optimizer steps.
        groups: of all steps, or of some that stand for all.
        share: of the epoch's tokens that are in these groups; 0 if it has none of them.
        validations: that are made in it.
    """

    steps: int
    groups: Sequence[Work]
    share: float
    validations: int


@dataclass(frozen=True)
class RunWork:
    """What the training of one adapter computes.

    Attributes:
        validation: the groups of each validation, with `validation_share` of its tokens.
    """

    epochs: Sequence[EpochWork]
    validation: Sequence[Work]
    validation_share: float = 1.0


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        step, validation: the time of groups of training, and of validation; None: there are no validation rows.
        update_s: of clipping and the optimizer's step.
    """

    step: StepTime
    validation: StepTime | None
    update_s: float


@dataclass(frozen=True)
class TrainingTime:
    """Predicted seconds of computing, with validations, without loading and checkpoints.

    Attributes:
        epochs: of each epoch; of all adapters together.
        validation_s: the part of `seconds` that validations take.
        width: half the width of the interval, as a share of `seconds`.
    """

    epochs: Sequence[float]
    validation_s: float
    width: float

    @property
    def seconds(self) -> float:
        return sum(self.epochs)

    @property
    def low(self) -> float:
        return self.seconds * max(0.0, 1 - self.width)

    @property
    def high(self) -> float:
        return self.seconds * (1 + self.width)


def extrapolate(runs: Sequence[RunWork], rates: Rates, first_s: float = 0.0) -> TrainingTime:
    """The time of several adapters that are trained one after another.

    Args:
        runs: with equally many epochs.
        first_s: what the first steps take longer than later ones.
    """
    epochs = [0.0] * max((len(run.epochs) for run in runs), default=0)
    if epochs:
        epochs[0] = first_s
    validating = 0.0
    for run in runs:
        once = _validation_seconds(run, rates)
        per_share = _per_share(run, rates)
        for number, epoch in enumerate(run.epochs):
            known = sum(rates.step.seconds(one) for one in epoch.groups)
            steps = known / epoch.share if epoch.share else per_share
            epochs[number] += steps + epoch.steps * rates.update_s + epoch.validations * once
            validating += epoch.validations * once
    return TrainingTime(epochs, validating, rates.step.width)


def _per_share(run: RunWork, rates: Rates) -> float:
    """Seconds of an epoch's groups, by all epochs of which some are known."""
    known = sum(rates.step.seconds(one) for epoch in run.epochs for one in epoch.groups)
    share = sum(epoch.share for epoch in run.epochs)
    return known / share if share else 0.0


def _validation_seconds(run: RunWork, rates: Rates) -> float:
    if rates.validation is None:
        return 0.0
    return sum(rates.validation.seconds(one) for one in run.validation) / run.validation_share
