"""What the plan says if training or serving does not fit: the nearest configurations that do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from journeyman.artifacts import read_rows
from journeyman.config import Config, TrainConfig
from journeyman.free_memory import free_memory
from journeyman.lints.facts import Memory
from journeyman.manifests import MemoryFree, NearestConfiguration, PlannedFile, as_set
from journeyman.model_files import is_checkpoint
from journeyman.models.quantizing import QUANTIZER
from journeyman.reasons import fitting as reasons
from journeyman.records import Example
from journeyman.sizing.fitting import Change, Option, Severity
from journeyman.sizing.memory import Part, peak_of
from journeyman.sizing.serving_fitting import Serving, nearest_servings
from journeyman.stages.plan_time import Estimate
from journeyman.training.fitting import Fitter, Rows
from journeyman.training.placement import Placement, Workload, limit_of, parts_of, place

_LESS_THAN_RAN_OUT = 0.75


def nearest_trainings(
    work: Workload, config: Config, placed: Placement, rows: Path, steps: int, tried: Estimate
) -> list[NearestConfiguration]:
    """The nearest configurations in which training fits; none if it fits as it is.

    Args:
        rows: the training rows, of which only lengths are read.
        steps: of all epochs.
        tried: if its steps needed more than training may use, all that is computed here is taken to need as many times
            more than computed as they did.
    """
    train, more = config.train, _more_than_computed(work, config.train, placed, tried)
    if placed.misfit is None and more is None:
        return []
    lengths = [one.prompt_tokens + one.answer_tokens for one in read_rows(rows, Example)]
    if more is not None:
        train = train.model_copy(update={"max_memory_gb": limit_of(train, placed.gpus) / more / 1e9})
        less = place(work, train)
        if less.misfit is None:
            seconds = less.seconds(work, train, sum(lengths) * train.epochs, steps)
            return [_record(_smaller(less), "training", round(more * less.memory.bytes), seconds)]
        placed = less
    cuts = config.curate.rules.action("too_long") == "cut"
    fitter = Fitter(work, train, placed, Rows(lengths, cuts), config.base.model, steps)
    return [
        _record(one.change, "training", round((more or 1.0) * one.memory.bytes), one.seconds) for one in fitter.found()
    ]


def _more_than_computed(work: Workload, train: TrainConfig, placed: Placement, tried: Estimate) -> float | None:
    """How many times the computed peak the steps needed that were tried; None: not more than training may use.

    What ran out of memory has needed more than was free; how much more is not known.
    """
    limit, computed = limit_of(train, placed.gpus), sum(parts_of(work, train, placed).values())
    if tried.measured_peak_bytes is not None and tried.measured_peak_bytes > limit:
        return tried.measured_peak_bytes / computed
    if tried.out_of_memory is not None and tried.out_of_memory.certain:
        return limit / (_LESS_THAN_RAN_OUT * computed)
    return None


def _smaller(placed: Placement) -> Change:
    memory = placed.memory
    settings = {"train.memory": memory.way, "train.pack_tokens": memory.pack_tokens}
    return Change(Severity.NOTHING, (Option(settings, reasons.OtherMemoryMode(memory.way)),))


def parts_gb(work: Workload, train: TrainConfig, placed: Placement, tried: Estimate) -> dict[str, float]:
    """What the computed peak of training consists of."""
    return {part: size / 1e9 for part, size in _parts(work, train, placed, tried).items() if size}


def peak_gb(work: Workload, train: TrainConfig, placed: Placement, tried: Estimate) -> float:
    """The peak of training: computed, or from what some steps needed."""
    parts = _parts(work, train, placed, tried)
    return peak_of(parts, tried.measured_peak_bytes, on_gpu=bool(placed.gpus)) / 1e9


def _parts(work: Workload, train: TrainConfig, placed: Placement, tried: Estimate) -> Mapping[Part, int]:
    return tried.memory_parts or parts_of(work, train, placed)


def memory_free(placed: Placement, train: TrainConfig) -> MemoryFree:
    """What may be used, of what is free now."""
    asked: Literal["max_memory_gb", "free"] = "free" if train.max_memory_gb is None else "max_memory_gb"
    limit = limit_of(train, placed.gpus) / 1e9
    if placed.gpus:
        card = min(placed.gpus, key=lambda one: one.free_bytes)
        return MemoryFree(
            limit_gb=limit, limit_from=asked, free_gb=card.free_bytes / 1e9, total_gb=card.total_bytes / 1e9
        )
    free = free_memory()
    return MemoryFree(
        limit_gb=limit,
        limit_from=asked,
        free_gb=free.bytes / 1e9,
        total_gb=free.total / 1e9,
        group_limit_gb=None if free.limit is None else free.limit / 1e9,
        group_used_gb=None if free.used is None else free.used / 1e9,
    )


def serving_of(
    work: Workload, config: Config, base: Path, served: Sequence[PlannedFile], longest_row: int
) -> tuple[PlannedFile, Serving] | None:
    """The file that needs least memory of those that may ship, and how it is served; None: a server serves the base.

    Args:
        longest_row: tokens of the longest row of the roles: no other is asked when the file is served.
    """
    if not served:
        return None
    least = min(served, key=lambda one: one.size_gb)
    return least, Serving(
        sizes=work.sizes,
        trainable=work.trainable,
        file_bytes=round(least.size_gb * 1e9),
        context=config.evaluate.context,
        parallel=config.evaluate.parallel,
        longest_row=longest_row,
        folder=is_checkpoint(base),
        quantizes=shutil.which(QUANTIZER) is not None,
    )


def nearest_of_serving(found: tuple[PlannedFile, Serving] | None, config: Config) -> list[NearestConfiguration]:
    """The nearest configurations in which serving stays below decide.max_memory_gb; none if it does as it is."""
    limit = int(config.decide.max_memory_gb * 1e9)
    if found is None or found[1].bytes_with() <= limit:
        return []
    serving = found[1]
    return [
        _record(change, "serving", serving.bytes_with(change.options), None)
        for change in nearest_servings(serving, limit)
    ]


def memory_facts(
    placed: Placement,
    served: tuple[PlannedFile, Serving] | None,
    config: Config,
    nearest: Sequence[NearestConfiguration],
    tried: Estimate,
    peak_gb: float,
) -> Memory:
    """What the lints look at. `peak_gb`: of training, from the measured peak if there is one."""
    first: dict[str, str] = {}
    for one in nearest:
        if one.settings:
            first.setdefault(one.of, one.flags())
    file, serving = served if served is not None else (None, None)
    return Memory(
        misfit=None if placed.misfit is None else placed.misfit.reason,
        served=Path(file.path).name if file is not None else "",
        serve_gb=serving.bytes_with() / 1e9 if serving is not None else None,
        serve_limit_gb=config.decide.max_memory_gb,
        context=config.evaluate.context,
        parallel=config.evaluate.parallel,
        settings=first,
        limit_gb=limit_of(config.train, placed.gpus) / 1e9,
        measured_gb=None if tried.measured_peak_bytes is None else tried.measured_peak_bytes / 1e9,
        peak_gb=peak_gb,
        trial=tried.out_of_memory,
    )


def _record(change: Change, of: str, needed: int, seconds: float | None) -> NearestConfiguration:
    return NearestConfiguration.model_validate({
        "of": of,
        "settings": {key: as_set(value) for key, value in change.settings.items()},
        "memory_gb": needed / 1e9,
        "train_s": seconds,
        "costs": [cost.record() for cost in change.costs],
        "needs_other_model": change.severity is Severity.OTHER_MODEL,
    })  # fmt: skip
