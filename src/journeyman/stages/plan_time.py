"""The plan's time of training: from steps that were tried if possible, else from the rate of matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import Config, TrainConfig
from journeyman.contention import Contention, ContentionWatch
from journeyman.errors import Interrupted
from journeyman.manifests import TrainTime
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.models.sizes import Sizes
from journeyman.protocols import Reporter
from journeyman.reasons import Reason, planning, timing
from journeyman.records import Example
from journeyman.rendering.rendered_rows import RenderedRows
from journeyman.rendering.renderer import Renderer
from journeyman.retention import general_rows, repeated
from journeyman.sizing.memory import Part
from journeyman.training.loop import validations_of_epoch
from journeyman.training.placement import Placement, Workload, parts_of_packs
from journeyman.training.row_rules import trained_rows
from journeyman.training.schedule import Schedule
from journeyman.training.trial_steps import (
    Adapters,
    Outcome,
    TrialFailed,
    TrialOutOfMemory,
    free_gpu_cache,
    schedules_of,
    try_steps,
)

_SHORTEST_S, _QUIET = 1.0, 0.1
_FORMULA_LOW, _FORMULA_HIGH, _STEP_S = 0.4, 3.0, 0.2
"""How far the estimate from the rate of matrix products may be off: small models, short rows and streamed weights reach
a third of the share that it assumes, and a step of a very small model is hardly products at all."""
_LOADING_BYTES_PER_S = 1e9
_SHARE_OF_RUN, _MOST_TIMES = 0.01, 6.0
"""Steps are tried for a hundredth of the run if that is more than plan.measure_s, at most for so many times that."""
_FORWARD_SHARE = 0.4
"""Of a step's work that a validation of the same rows takes: one forward pass of two or three passes."""


@dataclass(frozen=True)
class TrialInputs:
    """What steps can be tried with.

    Attributes:
        validation: the validation rows.
        general: what stands for the rows that are trained beside those of the roles.
    """

    base: Base
    factors: Factors | None
    renderer: Renderer
    validation: Path
    general: Sequence[Example] = ()


@dataclass(frozen=True)
class Estimate:
    """The time, and what was measured besides: see manifests.PlanManifest.

    Attributes:
        memory_parts: what the peak of memory consists of, computed for the packs of these rows; None: not known.
    """

    time: TrainTime
    measured_peak_bytes: int | None = None
    out_of_memory: planning.TrialOutOfMemory | None = None
    memory_parts: Mapping[Part, int] | None = None


def estimate_time(
    trial: TrialInputs | None, rows: Path, work: Workload, placed: Placement, config: Config, formula: Formula,
    reporter: Reporter, adapter_folder: Path | None = None,
) -> Estimate:  # fmt: skip
    """Tries some steps for about plan.measure_s seconds, unless that is impossible or not worth it.

    Args:
        trial: None: nothing can be tried.
        rows: the training rows.
        adapter_folder: where an adapter is written; see trial_steps.try_steps.

    Raises:
        Interrupted: the user asked to stop.
    """
    sizes = work.sizes
    ran_out: planning.TrialOutOfMemory | None = None
    parts: Mapping[Part, int] | None = None
    pairs, schedules = [], []
    if trial is not None and placed.misfit is None:
        pairs = _pairs(trial, rows, config.train)
        schedules = schedules_of(sizes, placed, config.train, Adapters(pairs))
        parts = parts_of_packs(work, config.train, placed, schedules)
    reason = _why_not(trial, sizes, placed, config, formula)
    if reason is None:
        assert trial is not None
        try:
            made = _measured(trial, pairs, schedules, sizes, placed, config, formula, reporter, adapter_folder)
            return replace(made, memory_parts=parts)
        except TrialFailed as error:
            if reporter.stop_requested:
                raise Interrupted("stopped while steps were tried", "Run it again") from error
            reason = timing.TrialStepsFailed(str(error))
            if isinstance(error, TrialOutOfMemory):
                ran_out = planning.TrialOutOfMemory(str(error), error.certain)
    return Estimate(formula.time(config.train, reason), out_of_memory=ran_out, memory_parts=parts)


@dataclass(frozen=True)
class Formula:
    """What the time is estimated from without a measurement.

    Attributes:
        seconds: of all steps, by the rate of matrix products.
        tokens: of all epochs.
        rows: of the training split.
        validation_tokens: of the validation split, about.
        steps_per_epoch: of each adapter.
    """

    seconds: float
    tokens: int
    rows: int
    validation_tokens: float
    steps_per_epoch: Sequence[int]

    def time(self, config: TrainConfig, reason: Reason) -> TrainTime:
        """With validations, whose rows are about as long as those of training."""
        per_token = self.seconds / max(1, self.tokens)
        once = _FORWARD_SHARE * per_token * self.validation_tokens
        most = max(self.steps_per_epoch, default=0)
        counts = [validations_of_epoch(one, config.epochs, most) if most else 0 for one in range(config.epochs)]
        epochs = [self.seconds / config.epochs + count * once for count in counts]
        return TrainTime(
            source="formula", why=reason.record(), seconds=sum(epochs), low=_FORMULA_LOW * sum(epochs),
            high=_FORMULA_HIGH * sum(epochs) + _STEP_S * config.epochs * sum(self.steps_per_epoch), epochs=epochs,
            validation_s=sum(counts) * once,
        )  # fmt: skip


def _why_not(
    trial: TrialInputs | None, sizes: Sizes, placed: Placement, config: Config, formula: Formula
) -> Reason | None:
    """Why no steps are tried."""
    budget = _budget_s(config, formula)
    if budget == 0:
        return timing.MeasuringIsOff()
    if config.cluster.address is not None:
        return timing.TrainsOnCluster(config.cluster.address)
    if trial is None or not formula.rows:
        return timing.NothingToMeasure()
    if placed.misfit is not None:
        return timing.DoesNotFitToMeasure()
    if formula.seconds < _SHORTEST_S:
        return timing.TooShortToMeasure(formula.seconds)
    loading = 0.0 if placed.memory.way == "stream" else sizes.parameters * placed.dtype.itemsize / _LOADING_BYTES_PER_S
    row = formula.seconds / config.train.epochs / formula.rows
    first = loading + row * (config.train.rows_per_step if placed.memory.way == "stream" and not placed.gpus else 1)
    return timing.StepTooLong(first, budget) if first > budget else None


def _budget_s(config: Config, formula: Formula) -> float:
    """For how long steps are tried: a long run's deserve more, because its longest step may take minutes."""
    asked = config.plan.measure_s
    return min(max(asked, _SHARE_OF_RUN * formula.seconds), _MOST_TIMES * asked)


def _pairs(trial: TrialInputs, rows: Path, train: TrainConfig) -> list[tuple[RenderedRows, RenderedRows]]:
    """The training and the validation rows of each adapter."""
    examples, held_out = trained_rows(read_rows(rows, Example), train.rows), list(read_rows(trial.validation, Example))
    return [
        (_rendered(trial.renderer, own), _rendered(trial.renderer, val))
        for own, val in _by_adapter(examples, held_out, train, trial.general)
    ]


def _measured(
    trial: TrialInputs, pairs: Sequence[tuple[RenderedRows, RenderedRows]], schedules: Sequence[Schedule],
    sizes: Sizes, placed: Placement, config: Config, formula: Formula, reporter: Reporter, adapter_folder: Path | None,
) -> Estimate:  # fmt: skip
    free_gpu_cache()
    budget = _budget_s(config, formula)
    reporter.begin("try some steps of training", budget, "s")
    watch = ContentionWatch()
    found = try_steps(
        trial.base, trial.factors, sizes, placed, config.train, schedules, budget, reporter, adapter_folder
    )
    every = [one for pair in pairs for one in pair]
    per_row = sum(one.seconds for one in every) / max(1, sum(one.rendered for one in every))
    seen = watch.seen()
    return Estimate(_time_of(found, per_row * sum(map(len, every)), seen), found.measured_peak_bytes)


def _rendered(renderer: Renderer, rows: Sequence[Example]) -> RenderedRows:
    lengths = [row.prompt_tokens + row.answer_tokens for row in rows]
    return RenderedRows(lambda number: renderer.example(rows[number]), lengths)


def _by_adapter(
    train: Sequence[Example], val: Sequence[Example], config: TrainConfig, general: Sequence[Example]
) -> list[tuple[list[Example], list[Example]]]:
    """The rows of each adapter, as the stage `train` divides them."""
    pairs = [(list(train), list(val))]
    if config.adapters == "per-role":
        roles = sorted({row.role for row in train})
        pairs = [([row for row in train if row.role == one], [row for row in val if row.role == one]) for one in roles]
    share = config.retention.share
    return [(own + repeated(general, general_rows(len(own), share)), held_out) for own, held_out in pairs]


def _time_of(found: Outcome, rendering_s: float, seen: Contention) -> TrainTime:
    """The interval is that of the measurement, widened by how busy the machine was: later it may be more or less so."""
    time, step = found.time, found.rates.step
    width = math.hypot(time.width, seen.share if seen.share > _QUIET else 0.0)
    return TrainTime(
        source="measured", seconds=time.seconds, low=time.seconds * max(0.1, 1 - width),
        high=time.seconds * (1 + width), others=seen.others, waiting=seen.waiting, stolen=seen.stolen,
        epochs=list(time.epochs), validation_s=time.validation_s,
        load_s=found.load_s + rendering_s, checkpoint_s=found.checkpoint_s,
        measured_s=found.measured_s, groups=found.groups, repetitions=found.repetitions, spread=step.spread,
        residual=step.residual,
    )  # fmt: skip
