"""START HERE. The ordered STAGES, and what happens to each: skip if fresh, resume, run, or refuse.

A stage is a function from typed artifacts to one new folder. Its fingerprint covers the stage's version,
the settings that it reads and the results that it builds on. `manifest.json` is written last, so a folder
without one is unfinished. The files that a stage reads are compared with their recorded hashes: see lineage.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

import journeyman
from journeyman import evidence, stage_calls, stage_settings, time_history
from journeyman.artifacts import (
    MANIFEST,
    disk_error,
    hash_of,
    hash_of_file,
    is_disk_error,
    read_json,
    remove_leftovers,
    write_json,
)
from journeyman.errors import ChangedArtifact, DiskError, InputError, Interrupted, UsageError
from journeyman.events import StageFinished, StageStarted
from journeyman.lineage import (
    UNFINISHED,
    check_files,
    files_below,
    manifest_data,
    refuse_link,
    result_hash,
    write_manifest,
)
from journeyman.locking import is_at_work, locked, worker_in
from journeyman.manifests import Stamp, set_flags
from journeyman.older_runs import NO_SHARE, SHARE, with_retention
from journeyman.protocols import Reporter
from journeyman.renamed import current_inputs
from journeyman.runs import PLACES, SEALED, STDIN, STDIN_FILE, Run, beside, read_result, typed_result
from journeyman.superseded import refuse_changed, set_aside, set_aside_or_refuse


@dataclass(frozen=True)
class Stage:
    """One row of STAGES.

    Attributes:
        version: incremented when the same inputs give a different result.
        needs: earlier stages whose results it reads.
        parts: of a need, the fields of its result that the stage depends on; of needs not named here, everything.
        settings: the parts of the config, and the outside files, that its result depends on.
        run: does the work in the given folder and returns the result for the manifest.
        resumable: works in its final folder and can resume there after an interruption.
        costly: unfinished work is never discarded without the user's consent, even if it is stale.
        guard: may refuse before anything is moved or made; called if the stage is not fresh.
        discards: whether a result is never kept, but made anew by the next run.
    """

    name: str
    version: int
    needs: Sequence[str]
    settings: Callable[[Run], Mapping[str, Any]]
    run: Callable[[Run, Path, str, Reporter], BaseModel]
    resumable: bool = False
    costly: bool = False
    guard: Callable[[Run], None] = lambda run: None
    discards: Callable[[Run, BaseModel], bool] = lambda run, result: False
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return PLACES[self.name].folder


STAGES: Sequence[Stage] = (
    Stage("ingest", 3, (), stage_settings.of_ingest, stage_calls.run_ingest, resumable=True),
    Stage("curate", 5, ("ingest",), stage_settings.of_curate, stage_calls.run_curate, resumable=True),
    Stage("plan", 4, ("curate",), stage_settings.of_plan, stage_calls.run_plan, discards=stage_calls.is_no_plan),
    Stage(
        "train", 3, ("curate", "plan"),
        stage_settings.of_train, stage_calls.run_train, resumable=True, costly=True,
        # Neither rules nor measurements of the plan: a new check must not cost hours of training.
        parts={"plan": stage_settings.PLAN_OF_TRAINING}, guard=stage_calls.refuse_no_go,
    ),
    Stage(
        "evaluate", 5, ("curate", "plan", "train"),
        stage_settings.of_evaluate, stage_calls.run_evaluate, resumable=True, costly=True,
        guard=stage_calls.refuse_fewer_looks,
    ),
    Stage(
        "decide", 3, ("ingest", "curate", "plan", "train", "evaluate"),
        stage_settings.of_decide, stage_calls.run_decide, guard=stage_calls.refuse_fewer_looks,
    ),
    Stage(
        "export", 2, ("curate", "plan", "train", "evaluate", "decide"),
        stage_settings.of_export, stage_calls.run_export,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class StageOutcome:
    """What run_pipeline did with a stage."""

    stage: str
    action: str
    seconds: float
    result: BaseModel


def run_pipeline(
    run: Run, until: str, reporter: Reporter, *, redo: bool = False, redo_from: str | None = None,
    measured_anew: bool = False,
) -> Iterator[StageOutcome]:  # fmt: skip
    """Brings all stages through `until` up to date, in order.

    Args:
        redo: rerun stale stages; their old folders move to superseded/.
        redo_from: the same, for this stage and later ones only.
        measured_anew: make a fresh plan again, because the machine may be quieter or have more memory now, unless
            something is trained by it.

    Raises:
        StaleArtifact: a stage that may not be rerun was made from other inputs or settings.
    """
    last = STAGES.index(stage_named(until))
    first_redone = 0 if redo else len(STAGES) if redo_from is None else STAGES.index(stage_named(redo_from))
    redo = redo or redo_from is not None
    if last:
        run.fetch_base(reporter)
        run.refuse_unservable()  # a base that cannot be used should fail now, not after the logs have been read
    if last >= STAGES.index(stage_named("plan")):
        run.make_served(reporter)
    if last >= STAGES.index(stage_named("evaluate")) and (redo or not (run.folder("evaluate") / MANIFEST).is_file()):
        run.load_checks()  # likewise, a check that cannot be loaded should fail before training
    with locked(run.root):
        for place in (run.root, run.root / evidence.FOLDER):
            remove_leftovers(place, below=False)
        for number, stage in enumerate(STAGES[: last + 1]):
            anew = stage.name == "plan" and measured_anew and not run.folder("train").exists()
            yield _bring_up_to_date(stage, run, reporter, number >= first_redone, anew=anew)


def _bring_up_to_date(stage: Stage, run: Run, reporter: Reporter, redo: bool, *, anew: bool = False) -> StageOutcome:
    """`anew`: make a fresh stage again."""
    folder, start = run.root / stage.folder, time.perf_counter()
    inputs = inputs_of(stage, run)
    action: Literal["made", "resumed"] = "made"
    begun: dict[str, str] | None = None
    if redo:
        _set_aside_if_changed(stage, run, reporter)
    refuse_link(folder)
    if (folder / MANIFEST).is_file():
        stamp, made = read_result(run.root, stage.name)
        recorded = recorded_inputs(stage, run, stamp.inputs, inputs)
        if stage.discards(run, made) or (anew and recorded == inputs):
            shutil.rmtree(folder)
        elif recorded == inputs:
            reporter.tell(StageFinished(stage.name, "fresh", 0.0))
            return StageOutcome(stage.name, "fresh", 0.0, made)
        else:
            stage.guard(run)
            set_aside_or_refuse(folder, recorded, inputs, redo, lambda: _restoring(run, recorded, inputs))
    elif stage.resumable and (folder / UNFINISHED).is_file():
        unfinished = _unfinished_inputs(folder)
        old = recorded_inputs(stage, run, unfinished, inputs)
        if old != inputs and not stage.costly:
            shutil.rmtree(folder)
        elif old != inputs:
            set_aside_or_refuse(folder, old, inputs, redo, lambda: _restoring(run, old, inputs))
        else:
            action, begun = "resumed", unfinished
    if reporter.stop_requested:
        raise Interrupted(f"stopped before the stage {stage.name}", "Run it again to resume")
    stage.guard(run)
    reporter.tell(StageStarted(stage.name, action))
    key = hash_of(inputs if begun is None else begun)
    with time_history.timed(run.root, stage.name, key):
        result = _work(stage, run, inputs, begun, reporter)
    time_history.compare(run.root, stage.name, key, result)
    seconds = time.perf_counter() - start
    reporter.tell(StageFinished(stage.name, action, seconds))
    return StageOutcome(stage.name, action, seconds, result)


def _restoring(run: Run, recorded: Mapping[str, str], inputs: Mapping[str, str]) -> str:
    """With which flags the stages that are there can be gone on with, if some are known; otherwise ""."""
    said = []
    if fitted := stage_settings.settings_of_plan(run):
        said.append(f"The plan was made with --fit, so add {set_flags(fitted)} to go on with it")
    if recorded.get(SHARE) == NO_SHARE != inputs.get(SHARE):
        said.append(f"It was made without general rows, so add {set_flags([f'{SHARE}=0'])} to go on with it")
    return ". ".join(said)


def _set_aside_if_changed(stage: Stage, run: Run, reporter: Reporter) -> None:
    """Sets a stage's folder aside if a file in it was changed: then it is not fresh, even if its inputs are."""
    folder = run.root / stage.folder
    if not folder.is_symlink() and not (folder / MANIFEST).is_file():
        return
    try:
        check_files(folder, read_result(run.root, stage.name)[0])
    except ChangedArtifact as error:
        reporter.say(f"{error.what}; the stage is rerun, and its old folder moves to superseded/")
        set_aside(folder)


def _unfinished_inputs(folder: Path) -> dict[str, str]:
    """The inputs of an unfinished stage; empty, which matches no inputs, if their record is damaged."""
    try:
        found = read_json(folder / UNFINISHED)
    except InputError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _work(
    stage: Stage, run: Run, inputs: dict[str, str], begun: dict[str, str] | None, reporter: Reporter
) -> BaseModel:
    """`begun`: the inputs as they were recorded when work began that is now resumed; checkpoints carry their hash."""
    final = run.root / stage.folder
    work = final if stage.resumable else run.root / f".staged-{stage.folder}"
    fingerprint = hash_of(inputs if begun is None else begun)
    try:
        _prepare(stage, work, inputs if begun is None else begun)
        _note_old(stage, run, reporter)
        result = stage.run(run, work, fingerprint, reporter)
        refuse_changed(inputs, inputs_of(stage, run), stage.name)
        _finish(stage, work, final, inputs, result)
    except BaseException as error:
        if not stage.resumable:
            shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, OSError) and is_disk_error(error):
            raise _placed(error, work) from error
        raise
    return result


def _prepare(stage: Stage, work: Path, inputs: dict[str, str]) -> None:
    if not stage.resumable:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    if stage.resumable:
        remove_leftovers(work, below=True)
        write_json(work / UNFINISHED, inputs)


def _note_old(stage: Stage, run: Run, reporter: Reporter) -> None:
    old = [run.folder(name).name for name in stage.needs if read_result(run.root, name)[0].sha256 is None]
    if old:
        reporter.say(
            f"note: the manifests of {', '.join(old)} were written by an older version, without their own hash: "
            "edits of them are not detected"
        )


def _finish(stage: Stage, work: Path, final: Path, inputs: dict[str, str], result: BaseModel) -> None:
    """Writes the manifest, then removes the mark of unfinished work; if killed in between, the stage is finished."""
    stamp = Stamp(
        stage=stage.name,
        version=stage.version,
        journeyman=journeyman.__version__,
        fingerprint=hash_of(inputs),
        inputs=inputs,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: hash_of_file(work / name) for name in files_below(work)},
    )
    write_manifest(work, stamp, result)
    (work / UNFINISHED).unlink(missing_ok=True)
    if work != final:
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)


def _placed(error: OSError, work: Path) -> DiskError:
    """The error at the path that the system reports; a failed copy reports its source, so its target is preferred."""
    named = error.filename2 or error.filename
    return disk_error(error, Path(named) if isinstance(named, str) else work)


def inputs_of(stage: Stage, run: Run) -> dict[str, str]:
    """What the fingerprint covers, by name, so that a difference can be reported by name."""
    values: dict[str, Any] = {"stage version": stage.version, **stage.settings(run)}
    for name in stage.needs:
        folder = run.folder(name)
        values[folder.name] = result_hash(manifest_data(folder / MANIFEST, name), stage.parts.get(name, ()))
    return {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}


def recorded_inputs(stage: Stage, run: Run, recorded: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Recorded inputs in today's terms: renamed keys, settings that older versions did not have, and parts of results
    that they hashed as a whole. `now`: the inputs today."""
    found = with_retention(run, current_inputs(recorded), now)
    for name, parts in stage.parts.items():
        folder = run.folder(name)
        data = manifest_data(folder / MANIFEST, name)
        if found.get(folder.name) == result_hash(data):
            found[folder.name] = result_hash(data, parts)
    return found


def stage_named(name: str) -> Stage:
    """The stage with that name; raises UsageError if there is none."""
    found = next((stage for stage in STAGES if stage.name == name), None)
    if found is None:
        raise UsageError(f"unknown stage {name!r}", f"One of: {', '.join(stage.name for stage in STAGES)}")
    return found


__all__ = [
    "SEALED",
    "STAGES",
    "STDIN",
    "STDIN_FILE",
    "Run",
    "StageOutcome",
    "beside",
    "inputs_of",
    "is_at_work",
    "locked",
    "read_result",
    "run_pipeline",
    "stage_named",
    "typed_result",
    "worker_in",
]
