"""Tries some steps of the run that is planned, in a process of its own, and predicts its time from them.

The shortest, the longest, the median and some other packs of the real rows, and the one with the longest row, are
trained with the backend, device, precision, memory mode and adapter of the plan, for some seconds. See sizing.step_time
for the fit, and sizing.training_time for the extrapolation.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from journeyman.config import TrainConfig
from journeyman.foreign import plain
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.models.sizes import Sizes
from journeyman.protocols import Reporter
from journeyman.rendering.rendered_rows import RenderedRows
from journeyman.sizing.gpu_memory import MOST_CAPTURED
from journeyman.sizing.step_time import StepTime, Timed, Work, fit, operations
from journeyman.sizing.training_time import EpochWork, Rates, RunWork, TrainingTime, extrapolate
from journeyman.training.batches import Pack
from journeyman.training.placement import Placement
from journeyman.training.schedule import Schedule, groups_of, in_groups, schedule_of, work_of
from journeyman.training.trial_messages import OUT_OF_MEMORY, Measured, Trial, TrialGpu, TrialGroup, TrialPack

MODULE = "journeyman.training.trial_process"
_PLACES = (0.0, 1.0, 0.5, 0.25, 0.75, 0.125, 0.875)
"""Where the groups that are tried are among all, ordered by size: the shortest, the longest, the median, and others."""
_STARTS_S, _LIMIT = 60.0, 2.0
"""The child is ended after twice its budget and the time in which Python, torch and CUDA start."""
_LAST, _POLL_S = 300, 0.2
_WORTH_IT, _AGAIN, _AGAIN_S = 0.02, 4, 4.0
"""If the first steps take longer by this share of the run, some groups are tried once more for some seconds."""


@dataclass(frozen=True)
class Adapters:
    """The rows of each adapter that is trained.

    Attributes:
        rows: (training rows, validation rows) of each adapter.
    """

    rows: Sequence[tuple[RenderedRows, RenderedRows]]


@dataclass(frozen=True)
class Outcome:
    """What trying some steps told.

    Attributes:
        time: predicted seconds of computing, with what the first steps take longer.
        load_s: to load the base.
        checkpoint_s: of one checkpoint.
        measured_s: how long the trial took in all.
        groups: different groups of packs that were tried.
        repetitions: of all of them.
        rates: what the prediction rests on.
        measured_peak_bytes: see trial_messages.Measured; None also if not all that needs much was tried: the peak of
            smaller steps says nothing of the run's.
        said: what the engine reported.
    """

    time: TrainingTime
    load_s: float
    checkpoint_s: float
    measured_s: float
    groups: int
    repetitions: int
    rates: Rates
    measured_peak_bytes: int | None
    said: Sequence[str]


class TrialFailed(Exception):
    """The child ended without a measurement; the text says why."""


class TrialOutOfMemory(TrialFailed):
    """The child ran out of memory, or it was killed, as the system does with what needs too much.

    Attributes:
        certain: it said so itself.
    """

    def __init__(self, why: str, *, certain: bool) -> None:
        super().__init__(why)
        self.certain = certain


def schedules_of(sizes: Sizes, placed: Placement, config: TrainConfig, adapters: Adapters) -> list[Schedule]:
    """What training each adapter computes."""
    group_tokens = placed.memory.group_tokens if _whole_groups(placed) else 0
    small = placed.memory.way == "keep" and sizes.linear_parameters <= MOST_CAPTURED
    captured = bool(placed.gpus) and small
    return [
        schedule_of(train, val, config, placed.memory.pack_tokens, group_tokens, classes=captured)
        for train, val in adapters.rows
        if train
    ]


def try_steps(
    base: Base, factors: Factors | None, sizes: Sizes, placed: Placement, config: TrainConfig,
    schedules: Sequence[Schedule], budget_s: float, reporter: Reporter, adapter_folder: Path | None = None,
) -> Outcome:  # fmt: skip
    """Measures for about `budget_s` seconds.

    Args:
        schedules: see schedules_of.
        adapter_folder: where an adapter is written, for which the time of answers can be measured; None: none.

    Raises:
        TrialFailed: no step was measured: there was no time for one, or the child failed.
    """
    whole = _whole_groups(placed)
    largest = _largest(every := groups_of(schedules))
    chosen = _chosen(every, largest, sizes)
    trial = _trial(base, factors, sizes, placed, config, schedules, chosen, budget_s, whole=whole)
    begun = time.monotonic()
    trial = trial.model_copy(update={"adapter_folder": "" if adapter_folder is None else str(adapter_folder)})
    made = run_child(trial, _LIMIT * budget_s + _STARTS_S, reporter)
    cached = bool(placed.gpus) and _compiled_too_long(made)
    if cached:  # now the kernels are cached
        made = run_child(trial, _LIMIT * budget_s + _STARTS_S, reporter)
    if not any(made.groups):
        raise TrialFailed("no step could be made in that time")
    tried = {id(group) for group, times in zip(chosen, made.groups, strict=True) if times}
    all_tried = tried.issuperset(map(id, largest))
    rates = _rates(trial, made, sizes, whole=whole)
    runs = [_run_work(one, whole=whole) for one in schedules]
    classes = len(frozenset().union(*(one.classes for one in schedules)))
    first_s = _first_times(made, classes)
    if placed.gpus and not cached and first_s > _WORTH_IT * extrapolate(runs, rates).seconds:
        # The kernels are compiled and cached now, as they will be when training begins.
        again = trial.model_copy(
            update={"groups": trial.groups[:_AGAIN], "validation": [], "budget_s": made.load_s + _AGAIN_S,
                    "adapter_folder": ""}
        )  # fmt: skip
        first_s = _first_times(run_child(again, _LIMIT * again.budget_s + _STARTS_S, reporter), classes)
    return Outcome(
        time=extrapolate(runs, rates, first_s),
        load_s=made.load_s,
        checkpoint_s=made.checkpoint_s,
        measured_s=time.monotonic() - begun,
        groups=sum(bool(one) for one in made.groups),
        repetitions=sum(len(one) for one in made.groups),
        rates=rates,
        measured_peak_bytes=made.measured_peak_bytes if all_tried else None,
        said=[plain(one) for one in made.said],
    )


def _compiled_too_long(made: Measured) -> bool:
    """Whether compiling kernels left no time to repeat a group, or took most of the time and left some out."""
    repeated = [len(times) > skipped for times, skipped in zip(made.groups, made.warm_ups, strict=True)]
    slower_s = sum(one - min(times) for times in made.groups for one in times)
    return not any(repeated) or (not all(repeated) and slower_s > made.measured_s / 2)


def run_child(trial: Trial, limit_s: float, reporter: Reporter) -> Measured:
    """What the child measured; raises TrialFailed."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(trial.model_dump_json().encode())
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(os.getpid())], stdin=given, stdout=subprocess.PIPE, stderr=said,
            start_new_session=True,  # Ctrl-C in the terminal is this process's to handle
        )  # fmt: skip
        try:
            while True:
                try:
                    told = child.communicate(timeout=_POLL_S)[0]
                    break
                except subprocess.TimeoutExpired:
                    passed = time.monotonic() - begun
                    reporter.advance(min(passed, trial.budget_s))
                    if reporter.stop_requested:
                        raise TrialFailed("it was stopped") from None
                    if passed > limit_s:
                        child.kill()  # what it told until then counts
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    if (code := child.returncode) and time.monotonic() - begun <= limit_s:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        why = f"it {how}" + (f": {plain(lines[-1], _LAST)}" if lines else "")
        if code in (OUT_OF_MEMORY, -signal.SIGKILL):
            raise TrialOutOfMemory(why, certain=code == OUT_OF_MEMORY)
        raise TrialFailed(why)
    try:
        return Measured.model_validate_json(told.splitlines()[-1])
    except (ValidationError, IndexError) as error:
        raise TrialFailed(f"no step was made in {time.monotonic() - begun:.0f} s") from error


def _whole_groups(placed: Placement) -> bool:
    """Whether packs of a group are computed together, so that the time of a group is not the sum of its packs'."""
    return (not placed.gpus and placed.memory.way != "keep") or len(placed.gpus) > 1


def _trial(
    base: Base, factors: Factors | None, sizes: Sizes, placed: Placement, config: TrainConfig,
    schedules: Sequence[Schedule], chosen: Sequence[Sequence[Pack]], budget_s: float, *, whole: bool,
) -> Trial:  # fmt: skip
    def sized(packs: Sequence[Pack]) -> TrialGroup:
        return TrialGroup(parts=[TrialPack.of(one) for one in packs], size=sum(operations(_work(packs, whole), sizes)))

    validation = _validation_groups(schedules, placed, whole=whole)
    some = [*chosen[:1], max(validation, key=_tokens)] if validation else []
    return Trial(
        base=str(base.path), config=config, memory=placed.memory.way, factors=factors,
        gpus=[TrialGpu.of(one) for one in placed.gpus], sharded=placed.sharded,
        groups=[sized(one) for one in chosen], validation=[sized(one) for one in some],
        budget_s=budget_s,
    )  # fmt: skip


def _chosen(groups: Sequence[Sequence[Pack]], largest: Sequence[Sequence[Pack]], sizes: Sizes) -> list[Sequence[Pack]]:
    """The groups at _PLACES by operations, each once; the longest are those of _largest."""
    ordered = sorted(groups, key=lambda one: sum(operations(_work(one, False), sizes)))
    if not ordered:
        return []
    found: dict[int, Sequence[Pack]] = {}
    for place in _PLACES:
        number = round(place * (len(ordered) - 1))
        for one in largest if place == 1.0 else [ordered[number]]:
            found.setdefault(id(one), one)
    return list(found.values())


def _largest(groups: Sequence[Sequence[Pack]]) -> list[Sequence[Pack]]:
    """What needs most memory: the group with most tokens, and the one with the longest row, if it is another."""
    most = max(groups, key=_tokens)
    longest = max(groups, key=lambda one: (_longest_row(one), one is most))
    return [most] if longest is most else [most, longest]


def _longest_row(packs: Sequence[Pack]) -> int:
    """Tokens of the longest row, with the beginning that it shares."""
    return max(
        length + (one.lengths[prefix] if prefix >= 0 else 0)
        for one in packs
        for length, prefix in zip(one.lengths, one.prefixes, strict=True)
    )


def _tokens(packs: Sequence[Pack]) -> int:
    return sum(len(one.ids_T) for one in packs)


def _validation_groups(schedules: Sequence[Schedule], placed: Placement, *, whole: bool) -> list[list[Pack]]:
    """What is tried of validation: single packs, or as many as a step has if a constant is paid for each call."""
    packs = [pack for one in schedules for pack in one.validation]
    return in_groups(packs, placed.memory.group_tokens if whole else 0) if packs else []


def _work(packs: Sequence[Pack], whole: bool) -> Work:
    """The work of a call; if its packs are computed together, its constant is paid once."""
    made = work_of(packs)
    return Work(1, made.tokens, made.pairs, made.labels) if whole and packs else made


def _run_work(schedule: Schedule, *, whole: bool) -> RunWork:
    return RunWork(
        epochs=[
            EpochWork(one.steps, [_work(group, whole) for group in one.groups], one.share, one.validations)
            for one in schedule.epochs
        ],
        validation=[_work(schedule.validation, whole)],
        validation_share=schedule.validation_share,
    )


def _rates(trial: Trial, made: Measured, sizes: Sizes, *, whole: bool) -> Rates:
    step = fit(list(_timed(trial.groups, made.groups, made.warm_ups, whole=whole)), sizes)
    measured = list(_timed(trial.validation, made.validation, [1] * len(trial.validation), whole=whole))
    validation: StepTime | None = fit(measured, sizes) if measured else None
    return Rates(step, validation, statistics.median(made.updates[1:] or made.updates))


def _timed(
    groups: Sequence[TrialGroup], seconds: Sequence[Sequence[float]], warm_ups: Sequence[int], *, whole: bool
) -> Iterator[Timed]:
    """The repetitions that count; the last warm-up if there was no time for more."""
    for one, times, skipped in zip(groups, seconds, warm_ups, strict=True):
        if times:
            yield Timed(_work(one.packs(), whole), times[skipped:] or times[-1:])


def _first_times(made: Measured, classes: int) -> float:
    """The seconds that first repetitions take longer than later ones, in the whole run.

    The first group of all also touches memory, and starts libraries. Where passes are captured, each further size class
    pays what the other groups of the trial typically paid; what one of them paid above that, such as for loading
    kernels that others use too, is paid once.
    """
    more = []
    for times, skipped in zip(made.groups, made.warm_ups, strict=True):
        if len(times) > skipped:
            typical = statistics.median(times[skipped:])
            more.append(sum(one - typical for one in times[:skipped]))
    if not more:
        return 0.0
    if not classes:
        return max(0.0, sum(more))
    typical = max(0.0, statistics.median(more[1:])) if len(more) > 1 else 0.0
    once = sum(max(0.0, one - typical) for one in more[1:])
    return max(0.0, more[0]) + once + typical * (classes - 1)


def free_gpu_cache() -> None:
    """Gives what measuring rates left in this process back to the GPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
