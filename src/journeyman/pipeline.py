"""START HERE. The ordered STAGES, and what happens to each: skip what is fresh, resume, run, or refuse.

A stage is a function from typed artifacts to one new folder. Its fingerprint covers the stage's version,
the settings that it reads and the results that it builds on; `manifest.json` is written last, so a folder
without one is unfinished. What a stage reads is compared with what an earlier one recorded: see lineage.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

import journeyman
from journeyman.artifacts import (
    ADAPTER_FILE,
    MANIFEST,
    disk_error,
    expanded,
    hash_of,
    hash_of_file,
    is_disk_error,
    read_json,
    remove_leftovers,
    write_json,
)
from journeyman.config import Config
from journeyman.errors import ChangedArtifact, InputError, Interrupted, StaleArtifact, UsageError
from journeyman.lineage import (
    UNFINISHED,
    check_files,
    files_below,
    find_by_hash,
    manifest_data,
    read_manifest,
    refuse_link,
    result_hash,
    write_manifest,
)
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    IngestManifest,
    PlanManifest,
    ServedFile,
    Stamp,
)
from journeyman.ports import Reporter

if TYPE_CHECKING:
    from journeyman.sources.files import Source

_LOCK = ".lock"
SOURCE = "source "
SEALED = "sealed/test.jsonl"
STDIN, STDIN_FILE = "-", ".stdin.jsonl"
_M = TypeVar("_M", bound=BaseModel)


@dataclass
class Run:
    """One run folder with its config; gives stages their typed inputs."""

    root: Path
    config: Config
    override: str | None = None
    allow_other_engine: bool = False

    def __post_init__(self) -> None:
        from journeyman.scoring.checks import Checks

        checks = Checks(self.root, self.config.evaluate.judge, self.config.evaluate.check_timeout_s)
        for role, section in self.config.roles.items():
            for key, names in (("checks", section.checks), ("weights", section.weights)):
                for name in names:
                    try:
                        checks.named(name)
                    except UsageError as error:
                        raise UsageError(f"roles.{role}.{key}: {error.what}", error.remedy) from error

    def folder(self, stage: str) -> Path:
        return self.root / stage_named(stage).folder

    def result(self, stage: str, kind: type[_M]) -> _M:
        """See typed_result."""
        return typed_result(self.root, stage, kind)

    def file(self, stage: str, name: str) -> Path:
        """A file of a finished stage, which is as the stage made it: see check_files."""
        check_files(self.folder(stage), read_result(self.root, stage)[0], [name])
        return self.folder(stage) / name

    def checked_folder(self, stage: str) -> Path:
        """The folder of a finished stage, all files of which are as the stage made them."""
        check_files(self.folder(stage), read_result(self.root, stage)[0])
        return self.folder(stage)

    @cached_property
    def base(self) -> Any:
        """The base model's open GGUF file."""
        from journeyman.models.geometry import geometry_of
        from journeyman.models.gguf_file import GgufFile

        file = GgufFile(self._base_path())
        geometry_of(file)  # one that cannot be trained on is refused before anything is spent
        return file

    def _base_path(self) -> Path:
        """Where base.model says; of a run that was moved, a file of that name and of the recorded hash beside it."""
        from journeyman.models.base import find_base

        try:
            return find_base(self.config.base.model, self.root)
        except InputError as missing:
            if not (self.folder("curate") / MANIFEST).is_file():
                raise
            recorded = read_result(self.root, "curate")[0].inputs.get("base", "")
            found = find_by_hash(recorded, beside(self.root, Path(self.config.base.model)))
            if found is None:
                raise InputError(missing.what, "Name the file where it is now: --set base.model=PATH") from missing
            return found.resolve()

    @property
    def base_sha256(self) -> str:
        return hash_of_file(self.base.path)

    @cached_property
    def bases(self) -> list[Path]:
        """The files of the base that may ship: the one that is trained on, then evaluate.quantizations."""
        from journeyman.models.base import same_geometry

        others = [self.root / expanded(name) for name in self.config.evaluate.quantizations]
        return [self.base.path, *(same_geometry(path, self.base) for path in others)]

    @cached_property
    def renderer(self) -> Any:
        from journeyman.rendering.renderer import Renderer

        return Renderer(self.base)

    def lineage(self) -> list[tuple[str, str, str]]:
        """(stage, file, SHA-256) of everything that was made so far, from the logs on, as the manifests have them."""
        read = read_result(self.root, "ingest")[0].inputs
        made = [("logs", name.removeprefix(SOURCE), read[name]) for name in read if name.startswith(SOURCE)]
        evaluated = self.result("evaluate", EvaluationManifest).files.values()
        made += [("base", Path(one.path).name, one.sha256) for one in evaluated]
        for stage in STAGES:
            if (self.root / stage.folder / MANIFEST).is_file():
                stamp, _ = read_result(self.root, stage.name)
                made += [(stage.name, f"{stage.folder}/{file}", digest) for file, digest in stamp.files.items()]
        return made

    @cached_property
    def sources(self) -> list[Source]:
        """The log files that data.sources names, folders and globs expanded, in order."""
        from journeyman.sources.files import log_sources

        return log_sources(self.root, [STDIN_FILE if name == STDIN else name for name in self.config.data.sources])


@dataclass(frozen=True)
class Stage:
    """One row of STAGES.

    Attributes:
        needs: earlier stages whose results it reads.
        settings: the part of the config, and of the world, that its result depends on.
        run: does the work in the folder given and returns the result for the manifest.
        resumable: works in its final folder and can go on there after an interruption.
        costly: what is unfinished is not thrown away without being asked, even if it no longer fits.
    """

    name: str
    folder: str
    version: int
    needs: Sequence[str]
    settings: Callable[[Run], Mapping[str, Any]]
    run: Callable[[Run, Path, str, Reporter], BaseModel]
    resumable: bool = False
    costly: bool = False


def _ingest(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.sources.files import skipped_files
    from journeyman.stages.ingest import ingest

    skipped = skipped_files(run.root, [name for name in run.config.data.sources if name != STDIN])
    return ingest(run.sources, run.config.data, run.config.redact, out, reporter, skipped)


def _curate(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.reporting.lint import write_lint
    from journeyman.stages.curate import curate

    rows = run.file("ingest", "interactions.jsonl.zst")
    dataset = curate(rows, run.config, run.base, out, reporter)
    write_lint(dataset, run.result("ingest", IngestManifest), out)
    return dataset


def _plan(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.models.geometry import geometry_of
    from journeyman.stages.plan import plan

    dataset = run.result("curate", DatasetManifest)
    return plan(dataset, run.config, run.bases, run.base_sha256, geometry_of(run.base), out, reporter)


def _train(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.stages.train import train

    rows, held_out = run.file("curate", "train.jsonl"), run.file("curate", "val.jsonl")
    plan = run.result("plan", PlanManifest)
    return train(rows, held_out, plan, run.config.train, run.base, fingerprint, out, reporter)


def _evaluate(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.inference.survey import Inputs
    from journeyman.stages.evaluate import evaluate

    trained = run.result("train", AdapterManifest).adapters
    inputs = Inputs(
        sealed=run.file("curate", SEALED),
        train_rows=run.file("curate", "train.jsonl"),
        adapters={name: run.file("train", str(Path(one.folder) / ADAPTER_FILE)) for name, one in trained.items()},
        bases=run.bases,
        folder=run.root,
    )
    return evaluate(inputs, run.result("plan", PlanManifest), run.config.evaluate, run.renderer, out, reporter)


def _decide(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.reporting.html import Evidence, write_report
    from journeyman.reporting.junit import write_junit
    from journeyman.stages.decide import decide

    plan, adapter = run.result("plan", PlanManifest), run.result("train", AdapterManifest)
    dataset, logs = run.result("curate", DatasetManifest), run.result("ingest", IngestManifest)
    evaluation = run.result("evaluate", EvaluationManifest)
    teacher = {**logs.by_role, "all": logs.total}
    decision = decide(plan, dataset, adapter, evaluation, run.config.train, teacher, out)
    evidence = Evidence(plan, adapter, evaluation, decision, run.lineage())
    evaluated, trained = run.checked_folder("evaluate"), run.checked_folder("train")
    write_report(evidence, evaluated, trained, run.file("curate", SEALED), out)
    write_junit(decision, evaluated, out / "junit.xml")
    return decision


def _export(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.stages.export import export

    evaluation, decision = run.result("evaluate", EvaluationManifest), run.result("decide", DecisionManifest)
    return export(
        run.result("plan", PlanManifest),
        run.result("curate", DatasetManifest),
        run.result("train", AdapterManifest),
        evaluation,
        decision,
        _file_that_ships(run, evaluation.files[decision.ships]),
        run.checked_folder("train"),
        run.config.evaluate,
        run.config.redact,
        run.override,
        out,
    )


def _file_that_ships(run: Run, evaluated: ServedFile) -> Path:
    """The file of the base that was evaluated, wherever it lies now."""
    found = find_by_hash(evaluated.sha256, [*run.bases, *beside(run.root, Path(evaluated.path))])
    if found is None:
        raise InputError(
            f"{evaluated.path}: the file that was evaluated (SHA-256 {evaluated.sha256[:12]}…) is not there any more",
            "Name it where it is now: journeyman export --set base.model=PATH",
        )
    return found


def _source_settings(run: Run) -> Mapping[str, Any]:
    data = {key: value for key, value in run.config.data.model_dump().items() if key != "sources"}
    return {
        **{f"{SOURCE}{name}": hash_of_file(path) if path.is_file() else "missing" for name, path in run.sources},
        **_flat("data", data),
        **_flat("redact", run.config.redact.model_dump()),
    }


def beside(root: Path, path: Path) -> list[Path]:
    """Where a file may lie that a moved run knows by an old path: in the run's folder, there, or beside the folder."""
    return [root / path.name, path, root.resolve().parent / path.name]


def _role_settings(run: Run, *names: str) -> Mapping[str, Any]:
    return {
        f"roles.{role}.{name}": getattr(section, name)
        for role, section in sorted(run.config.roles.items())
        for name in names
    }


def _files_that_may_ship(run: Run) -> Mapping[str, Any]:
    return {f"quantization {path.name}": hash_of_file(path) for path in run.bases[1:]}


def _checks_of_data(run: Run) -> Mapping[str, Any]:
    """Which checks say whether a role's rows can be tested."""
    from journeyman.scoring.row_data import looks_at_data

    named = {role: looks_at_data((*one.checks, *one.weights)) for role, one in sorted(run.config.roles.items())}
    return {f"roles.{role} checks of rows' data": names for role, names in named.items() if names}


def _own_checks(run: Run) -> Mapping[str, Any]:
    """The hashes of the files that hold checks of the person's own."""
    from journeyman.scoring.checks import own_files

    names = {name for section in run.config.roles.values() for name in (*section.checks, *section.weights)}
    return {f"check {file}": hash_of_file(run.root / file) for file in own_files(names)}


def _engine(run: Run) -> Mapping[str, Any]:
    """The serving engine; the recorded one where another is allowed."""
    from journeyman.inference.engines import ENGINE, engine_inputs

    if run.allow_other_engine and (run.folder("evaluate") / MANIFEST).is_file():
        recorded = read_result(run.root, "evaluate")[0].inputs
        return {key: value for key, value in recorded.items() if key.startswith(ENGINE)}
    return engine_inputs(run.config.evaluate)


def _flat(prefix: str, value: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(f"{prefix}.{key}", inner) if isinstance(inner, dict) else {f"{prefix}.{key}": inner}
    return flat


_SAFE_TO_CHANGE = {"checkpoint_s", "checkpoint_steps"}
"""Keys of [train] that do not change its result: a run may go on with other values."""

STAGES: Sequence[Stage] = (
    Stage("ingest", "01-interactions", 2, (), _source_settings, _ingest, resumable=True),
    Stage(
        "curate", "02-dataset", 4, ("ingest",),
        lambda run: {
            "base": run.base_sha256,
            **_flat("curate", run.config.curate.model_dump()),
            **_role_settings(run, "system_prompt"),
            **_checks_of_data(run),
        },
        _curate, resumable=True,
    ),
    Stage(
        "plan", "03-plan", 4, ("curate",),
        lambda run: {
            "base": run.base_sha256,
            **_flat("train", run.config.train.model_dump(exclude=_SAFE_TO_CHANGE)),
            **_flat("decide", run.config.decide.model_dump()),
            **_role_settings(run, "checks", "weights", "pass_at"),
            **_own_checks(run),
            **_files_that_may_ship(run),
        },
        _plan,
    ),
    Stage(
        "train", "04-adapter", 3, ("curate", "plan"),
        lambda run: {"base": run.base_sha256, **_flat("train", run.config.train.model_dump(exclude=_SAFE_TO_CHANGE))},
        _train, resumable=True, costly=True,
    ),
    Stage(
        "evaluate", "05-evaluation", 5, ("curate", "plan", "train"),
        lambda run: {"base": run.base_sha256, **_flat("evaluate", run.config.evaluate.model_dump()), **_engine(run)},
        _evaluate, resumable=True, costly=True,
    ),
    Stage(
        "decide", "06-decision", 3, ("ingest", "curate", "plan", "train", "evaluate"),
        lambda run: {}, _decide,
    ),
    Stage(
        "export", "07-bundle", 2, ("curate", "plan", "train", "evaluate", "decide"),
        lambda run: {
            "override": run.override,
            **_flat("evaluate", run.config.evaluate.model_dump()),
            **_flat("redact", run.config.redact.model_dump()),
        },
        _export,
    ),
)  # fmt: skip

RESULT_KINDS: Mapping[str, type[BaseModel]] = {
    "ingest": IngestManifest,
    "curate": DatasetManifest,
    "plan": PlanManifest,
    "train": AdapterManifest,
    "evaluate": EvaluationManifest,
    "decide": DecisionManifest,
    "export": BundleManifest,
}


@dataclass(frozen=True)
class StageOutcome:
    """What run_pipeline did with a stage."""

    stage: str
    action: str
    seconds: float
    result: BaseModel


def run_pipeline(run: Run, until: str, reporter: Reporter, *, redo: bool = False) -> Iterator[StageOutcome]:
    """Brings every stage up to and including `until` up to date, in order.

    Args:
        redo: makes stale stages again; the old folders move to superseded/.

    Raises:
        StaleArtifact: a stage was made from other inputs or settings, and `redo` is not set.
    """
    last = STAGES.index(stage_named(until))
    if last:
        _ = run.base  # before the logs are read: one that cannot be used would end the run in the middle
    with locked(run.root):
        remove_leftovers(run.root, below=False)
        for stage in STAGES[: last + 1]:
            yield _bring_up_to_date(stage, run, reporter, redo)


def _bring_up_to_date(stage: Stage, run: Run, reporter: Reporter, redo: bool) -> StageOutcome:
    folder, start = run.root / stage.folder, time.perf_counter()
    inputs = _inputs(stage, run)
    action = "made"
    if redo:
        _set_aside_if_changed(stage, run, reporter)
    refuse_link(folder)
    if (folder / MANIFEST).is_file():
        stamp, made = read_result(run.root, stage.name)
        if stamp.inputs == inputs:
            return StageOutcome(stage.name, "fresh", 0.0, made)
        _set_aside_or_refuse(folder, stamp.inputs, inputs, redo)
    elif stage.resumable and (folder / UNFINISHED).is_file():
        old = _unfinished_inputs(folder)
        if old != inputs and not stage.costly:
            shutil.rmtree(folder)
        elif old != inputs:
            _set_aside_or_refuse(folder, old, inputs, redo)
        else:
            action = "resumed"
    if reporter.stop_requested:
        raise Interrupted(f"stopped before the stage {stage.name}", "Run it again to go on")
    result = _work(stage, run, inputs, reporter)
    return StageOutcome(stage.name, action, time.perf_counter() - start, result)


def _set_aside_if_changed(stage: Stage, run: Run, reporter: Reporter) -> None:
    """What is no longer as the stage made it is not fresh, whatever its inputs."""
    folder = run.root / stage.folder
    if not folder.is_symlink() and not (folder / MANIFEST).is_file():
        return
    try:
        check_files(folder, read_result(run.root, stage.name)[0])
    except ChangedArtifact as error:
        reporter.say(f"{error.what}; it is made again, the old is kept in superseded/")
        _set_aside(folder)


def _unfinished_inputs(folder: Path) -> dict[str, str]:
    """What an unfinished stage is being made from; nothing where the record is damaged, which fits no inputs."""
    try:
        found = read_json(folder / UNFINISHED)
    except InputError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _work(stage: Stage, run: Run, inputs: dict[str, str], reporter: Reporter) -> BaseModel:
    final = run.root / stage.folder
    work = final if stage.resumable else run.root / f".staged-{stage.folder}"
    fingerprint = hash_of(inputs)
    try:
        _prepare(stage, work, inputs)
        _note_old(stage, run, reporter)
        result = stage.run(run, work, fingerprint, reporter)
        _refuse_changed(inputs, _inputs(stage, run), stage.name)
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
            f"note: the manifests of {', '.join(old)} hold no hash of themselves (an older version made them): "
            "an edit of them is not noticed"
        )


def _finish(stage: Stage, work: Path, final: Path, inputs: dict[str, str], result: BaseModel) -> None:
    """Writes the manifest, then takes the mark of unfinished work away: killed between the two, the stage is made."""
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


def _placed(error: OSError, work: Path) -> InputError:
    """What the system names is where it happened, except that a copy onto a full disk names what was copied."""
    named = error.filename2 or error.filename
    return disk_error(error, Path(named) if isinstance(named, str) else work)


def _refuse_changed(before: Mapping[str, str], after: Mapping[str, str], stage: str) -> None:
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if changed:
        raise InputError(
            f"changed while {stage} read it: {', '.join(changed)}",
            "Let nothing write to it, or use a copy, and run it again",
        )


def _inputs(stage: Stage, run: Run) -> dict[str, str]:
    """What the fingerprint covers, by name, so that a difference can be named."""
    values: dict[str, Any] = {"stage version": stage.version, **stage.settings(run)}
    for name in stage.needs:
        folder = run.folder(name)
        values[folder.name] = result_hash(manifest_data(folder / MANIFEST, name))
    return {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}


def _set_aside_or_refuse(folder: Path, old: Mapping[str, str], new: Mapping[str, str], redo: bool) -> None:
    if not redo:
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        shown = "; ".join(f"{key}: {_short(old.get(key))}, now {_short(new.get(key))}" for key in changed[:3])
        raise StaleArtifact(
            f"{folder}: made from other inputs ({shown})",
            "To make it and what follows again (the old is kept in superseded/): journeyman run --redo; "
            "or go back to the old setting, or use another folder",
        )
    _set_aside(folder)


def _set_aside(folder: Path) -> None:
    aside = folder.parent / "superseded"
    aside.mkdir(exist_ok=True)
    folder.rename(aside / f"{folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value[:12] + "…" if len(value) == 64 else value[:60]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One journeyman a folder at a time. The lock names its holder: `host pid`.

    Raises:
        UsageError: another one is at work in the folder, or its file system has no locks.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{root}: another journeyman is at work in this folder", "Wait for it or stop it"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{lock.name}: cannot be locked ({error.strerror})", "Use a folder on a disk of this machine"
            ) from error
        with suppress(OSError):  # a full disk: the lock holds without the name
            lock.truncate(0)
            lock.write(f"{socket.gethostname()} {os.getpid()}")
            lock.flush()
        yield


def is_at_work(root: Path) -> bool:
    """True while a journeyman works in the folder; a process that died holds nothing any more."""
    try:
        with (root / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def worker_in(root: Path) -> tuple[str, int] | None:
    """Host and process of the journeyman at work in the folder; None where there is none, or it did not say."""
    if not is_at_work(root):
        return None
    host, _, pid = (root / _LOCK).read_text().rpartition(" ")
    return (host, int(pid)) if host and pid.isdecimal() else None


def stage_named(name: str) -> Stage:
    """The row of STAGES with that name; an unknown one is a UsageError."""
    found = next((stage for stage in STAGES if stage.name == name), None)
    if found is None:
        raise UsageError(f"unknown stage {name!r}", f"One of: {', '.join(stage.name for stage in STAGES)}")
    return found


def read_result(root: Path, stage: str) -> tuple[Stamp, BaseModel]:
    """The stamp and the result of a finished stage, without a config.

    Raises:
        InputError: the stage has not been run, its folder is a link, or its manifest is damaged: see read_manifest.
    """
    path = root / stage_named(stage).folder / MANIFEST
    refuse_link(path.parent)
    if not path.is_file():
        raise InputError(f"{path}: the stage {stage!r} has not been run", f"Run: journeyman run --until {stage}")
    return read_manifest(path, stage, RESULT_KINDS[stage])


def typed_result(root: Path, stage: str, kind: type[_M]) -> _M:
    """The result of a finished stage as the manifest class that the stage makes; raises as read_result does."""
    result = read_result(root, stage)[1]
    assert isinstance(result, kind), f"{stage} makes {type(result).__name__}, not {kind.__name__}"
    return result


__all__ = [
    "SEALED",
    "STAGES",
    "STDIN",
    "STDIN_FILE",
    "Run",
    "StageOutcome",
    "beside",
    "is_at_work",
    "locked",
    "read_result",
    "run_pipeline",
    "stage_named",
    "typed_result",
    "worker_in",
]
