"""Trains several trials that differ in their settings: with one base in memory, in one batch where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from journeyman.artifacts import read_rows, write_atomic
from journeyman.config import TrainConfig
from journeyman.errors import DiskError, Interrupted, JourneymanError, TrainingDiverged
from journeyman.general_rows import FILE
from journeyman.manifests import AdapterManifest
from journeyman.models.geometry import Geometry
from journeyman.models.opening import sizes_of
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example
from journeyman.rendering.renderer import Renderer
from journeyman.runs import Run
from journeyman.stages.train import Trained, jobs_of, manifest_of, planned_gpus, render_rows, train_job
from journeyman.training.allocation import in_memory
from journeyman.training.backends import Backend, Gpus, backend_of
from journeyman.training.hardware import forget_peaks, keep_freed_memory, use_threads
from journeyman.training.joint_training import train_jointly
from journeyman.training.loop import TrainingJob
from journeyman.training.row_rules import trained_rows
from journeyman.trials.rows import TrialRows
from journeyman.trials.training import Prepared, files_of, general_folder, prepared_trial, train_prepared

T = TypeVar("T")
TrainedTrial = tuple[AdapterManifest, dict[str, Path]]
"""What was trained, and 'all' or role → the adapter's file."""


def train_trials(
    run: Run, trials: Sequence[tuple[TrainConfig, Path]], rows: TrialRows, reporter: Reporter
) -> list[TrainedTrial | Exception]:
    """Each trial as train_trial trains it, up to rounding, or the error with which it failed, in their order.

    Args:
        trials: settings, and a folder of its own for each.

    Raises:
        Interrupted: asked to stop; every trial has saved its state.
        DiskError: as train_trial.
    """
    made: dict[int, TrainedTrial | Exception] = {}
    prepared: dict[int, Prepared] = {}
    answered: dict[str, Path] = {}
    for number, (config, folder) in enumerate(trials):
        one = _attempt(partial(_prepared, run, config, rows, folder, reporter, answered))
        if isinstance(one, Exception):
            made[number] = one
        else:
            prepared[number] = one
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, one in prepared.items():
        plan, config = one.plan, one.config
        kind = (plan.device, plan.precision, plan.memory, plan.sharded, config.precision, config.threads)
        groups.setdefault(kind, []).append(number)
    decoded = isinstance(sizes_of(run.base), Geometry)
    for numbers in groups.values():
        of = {number: prepared[number] for number in numbers}
        if len(of) > 1 and decoded and all(one.config.gpus == 1 for one in of.values()):
            try:
                made.update(in_memory(partial(_train_group, run, of, reporter)))
                continue
            except (Interrupted, DiskError):
                raise
            except (JourneymanError, MemoryError) as error:
                what = error.what if isinstance(error, JourneymanError) else "out of memory"
                reporter.say(f"trials cannot be trained together, so each is trained alone: {what}")
        for number, one in of.items():
            made[number] = _attempt(partial(train_prepared, run, one, reporter))
    return [made[number] for number in range(len(trials))]


def _prepared(
    run: Run, config: TrainConfig, rows: TrialRows, folder: Path, reporter: Reporter,
    answered: dict[str, Path],
) -> Prepared:  # fmt: skip
    """As prepared_trial, but the engine is not loaded again for the general rows that another trial has.

    Args:
        answered: the name of a folder of general rows → the file with the base's answers; what is made is added.
    """
    trained = replace(rows, train=trained_rows(rows.train, config.rows))
    place = general_folder(run, config, trained, folder)
    if place is not None and place.name in answered and not (place / FILE).is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / FILE, answered[place.name].read_bytes())
    made = prepared_trial(run, config, rows, folder, reporter)
    if made.general is not None:
        answered[made.general.parent.name] = made.general
    return made


def _attempt(work: Callable[[], T]) -> T | Exception:
    """What the work returns; the error of one trial is its result, and does not end the others."""
    try:
        return in_memory(work)
    except (Interrupted, DiskError):
        raise
    except (JourneymanError, MemoryError) as error:
        return error.with_traceback(None)  # whose frames would keep tensors alive


@dataclass(frozen=True)
class _Adapter:
    """An adapter of a trial, by number and name ('all' or a role)."""

    trial: int
    name: str
    job: TrainingJob


def _train_group(run: Run, of: dict[int, Prepared], reporter: Reporter) -> dict[int, TrainedTrial | Exception]:
    """Trials whose base is in memory in the same form."""
    first = next(iter(of.values()))
    forget_peaks()
    keep_freed_memory()
    use_threads(first.config.threads)
    reporter.begin("load the base", 1, "model")
    adapters = _adapters(run, of)
    plan = first.plan
    gpus = None if plan.device is None else Gpus(planned_gpus(plan, first.config), plan.sharded, reporter.say)

    def train_one(backend: Backend, name: str, reporter: Reporter) -> Trained | TrainingDiverged:
        one = adapters[name]
        try:
            return train_job(backend, one.job, one.name, of[one.trial].folder, reporter)
        except TrainingDiverged as error:
            return error

    memory = max(one.plan.estimated_train_memory_gb for one in of.values()) * 1e9
    jobs = {name: one.job for name, one in adapters.items()}
    with closing(backend_of(run.base, first.config, plan.memory, run.factors, gpus)) as backend:
        trained = train_jointly(backend, jobs, memory, reporter, train_one)
    found: dict[int, TrainedTrial | Exception] = {}
    for number, one in of.items():
        own = {adapters[name].name: made for name, made in trained.items() if adapters[name].trial == number}
        failed = next((made for made in own.values() if isinstance(made, TrainingDiverged)), None)
        if failed is not None:
            found[number] = failed
            continue
        manifest = manifest_of(one.plan, {name: made for name, made in own.items() if isinstance(made, Trained)})
        found[number] = manifest, files_of(manifest, one.folder)
    return found


def _adapters(run: Run, of: dict[int, Prepared]) -> dict[str, _Adapter]:
    """By the name that is shown to the user."""
    renderer = Renderer(run.base)
    found: dict[str, _Adapter] = {}
    for number, one in of.items():
        general = [] if one.general is None else list(read_rows(one.general, Example))
        train, val = (list(part) for part in (one.rows.train, one.rows.val))
        jobs = jobs_of(
            one.plan, one.config, (train, render_rows(renderer, train)), (val, render_rows(renderer, val)),
            render_rows(renderer, general), one.fingerprint, one.folder,
        )  # fmt: skip
        for name, job in jobs.items():
            shown = f"trial {number + 1}" + ("" if name == EVERY_ROLE else f", {name}")
            found[shown] = _Adapter(number, name, job)
    return found
