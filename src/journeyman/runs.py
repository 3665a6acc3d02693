"""A run's folder: where its stages are, what they made, and the inputs from outside."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import BaseModel

from journeyman.artifacts import MANIFEST
from journeyman.config import CONFIG_NAME, Config
from journeyman.errors import InputError, UsageError
from journeyman.lineage import check_files, read_manifest, refuse_link
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    FittedSetting,
    IngestManifest,
    PlanManifest,
    Stamp,
)
from journeyman.model_files import find_by_hash, is_checkpoint

if TYPE_CHECKING:
    from journeyman.models.base import Base
    from journeyman.models.geometry import Factors
    from journeyman.protocols import Reporter
    from journeyman.rendering.renderer import Renderer
    from journeyman.sources.files import Source

SOURCE = "source "
SEALED = "sealed/test.jsonl"
STDIN, STDIN_FILE = "-", ".stdin.jsonl"
TARGETS_FOLDER = "targets"
"""Where `export --target` writes, unless it is told otherwise."""
_M = TypeVar("_M", bound=BaseModel)


class Place(NamedTuple):
    """The folder that a stage makes below the run's, and the class of its manifest's result."""

    folder: str
    makes: type[BaseModel]


PLACES: Mapping[str, Place] = {
    "ingest": Place("01-interactions", IngestManifest),
    "curate": Place("02-dataset", DatasetManifest),
    "plan": Place("03-plan", PlanManifest),
    "train": Place("04-adapter", AdapterManifest),
    "evaluate": Place("05-evaluation", EvaluationManifest),
    "decide": Place("06-decision", DecisionManifest),
    "export": Place("07-bundle", BundleManifest),
}
"""Stage → its place, in order. Names and folders are recorded in manifests, so they never change."""


@dataclass
class Run:
    """A run's folder and config; gives stages their typed inputs.

    Attributes:
        fitted: what --fit changed in the config; the plan records it.
    """

    root: Path
    config: Config
    override: str | None = None
    allow_other_engine: bool = False
    fitted: Sequence[FittedSetting] = ()

    def __post_init__(self) -> None:
        from journeyman.scoring.check_names import check_name

        for role, section in self.config.roles.items():
            for key, names in (("checks", section.checks), ("weights", section.weights)):
                for name in names:
                    try:
                        check_name(name, self.root, self.config.evaluate.judge)
                    except UsageError as error:
                        raise UsageError(f"roles.{role}.{key}: {error.what}", error.remedy) from error

    def load_checks(self) -> None:
        """Loads the user's own checks once, in a child process, to find errors before the stages that need them.

        Raises:
            UsageError: a file cannot be loaded, or what it defines is not a check.
        """
        from journeyman.scoring.checks import Checks

        settings = self.config.evaluate
        checks = Checks(self.root, settings.judge, settings.check_timeout_s)
        checks.load(name for section in self.config.roles.values() for name in (*section.checks, *section.weights))

    def folder(self, stage: str) -> Path:
        return self.root / place_of(stage).folder

    def result(self, stage: str, kind: type[_M]) -> _M:
        """See typed_result."""
        return typed_result(self.root, stage, kind)

    def file(self, stage: str, name: str) -> Path:
        """A file of a finished stage, verified to be unchanged: see check_files."""
        check_files(self.folder(stage), read_result(self.root, stage)[0], [name])
        return self.folder(stage) / name

    def checked_folder(self, stage: str) -> Path:
        """The folder of a finished stage, with all files verified to be unchanged."""
        check_files(self.folder(stage), read_result(self.root, stage)[0])
        return self.folder(stage)

    @cached_property
    def base(self) -> Base:
        """The opened base model."""
        from journeyman.models.opening import open_base, sizes_of
        from journeyman.rendering.choosing import with_template
        from journeyman.rendering.template import template_of

        base = open_base(self._base_path())
        sizes_of(base)  # refuses a base that cannot be trained before any work is done
        base = with_template(base, self.config.base, self.root)
        template_of(base.tokenizer, str(base.path))  # refuses one that does not compile, or none
        return base

    @property
    def factors(self) -> Factors | None:
        """The rotary divisors with which the engine serves evaluate.context, if the base has two sets."""
        from journeyman.models.geometry import Geometry
        from journeyman.models.opening import sizes_of

        sizes = sizes_of(self.base)
        return sizes.factors(self.config.evaluate.context) if isinstance(sizes, Geometry) else None

    def refuse_unservable(self) -> None:
        """Refuses a base whose architecture the installed engine does not have.

        Raises:
            InputError: the engine does not have it, or llama.cpp's converter does not work.
            EngineError: the engine does not say what it has.
        """
        from journeyman.inference.engines import engine_knows
        from journeyman.models.opening import architecture_to_serve

        if self.config.evaluate.server is not None and self.base.tokenizer.choice is not None:
            raise InputError(
                "base.chat_template, base.template_options or base.template_date: [evaluate.server] serves the folder "
                "with its own template, so it would send other prompts than those that are trained",
                "Remove these keys, or evaluate GGUF files (evaluate.quantizations) instead of a server",
            )
        architecture = architecture_to_serve(self.base)
        if architecture is not None and not engine_knows(architecture):
            raise InputError(
                f"{self.base.path}: the installed engine cannot serve its architecture ({architecture})",
                "Install a newer xllamacpp, or use another base",
            )

    def fetch_base(self, reporter: Reporter) -> None:
        """Downloads the base if base.model names one of a hub that is not on this machine.

        Raises:
            InputError, DiskError, Interrupted: as models.hub.find_model.
        """
        from journeyman.models.names import NotDownloaded
        from journeyman.models.opening import find_base

        try:
            self._base_path()
        except NotDownloaded:
            find_base(self.config.base.model, self.root, reporter)

    def _base_path(self) -> Path:
        """The file that base.model names; if the run was moved, a nearby file with that name and the recorded hash."""
        from journeyman.models.finding import settled
        from journeyman.models.names import may_be
        from journeyman.models.opening import find_base

        try:
            return find_base(self.config.base.model, self.root)
        except InputError as missing:
            if not (self.folder("curate") / MANIFEST).is_file():
                raise
            recorded = read_result(self.root, "curate")[0].inputs.get("base", "")
            names = [self.config.base.model]
            if (self.folder("plan") / MANIFEST).is_file():  # the file's own name, if the config names a model
                path = self.result("plan", PlanManifest).base_path
                names += [path] if may_be(Path(path), self.config.base.model) else []
            found = find_by_hash(recorded, [path for name in names for path in beside(self.root, Path(name))])
            if found is None:
                remedy = f"{missing.remedy}, or give its current path: --set base.model=PATH"
                raise type(missing)(missing.what, remedy) from missing
            return settled(found)

    @property
    def base_sha256(self) -> str:
        return self.base.sha256

    @cached_property
    def served(self) -> list[Path]:
        """The GGUF files of the base that may ship; none if only a server may.

        The first one also answers without an adapter.
        """
        return self._served(None)

    def make_served(self, reporter: Reporter) -> None:
        """Downloads or makes the files that may ship and are not on this machine; raises as served_files does."""
        self._served(reporter)

    def _served(self, reporter: Reporter | None) -> list[Path]:
        from journeyman.models.served import served_files

        settings = self.config.evaluate
        if settings.server is not None and not is_checkpoint(self.base.path):
            raise UsageError(
                f"evaluate.server serves a Hugging Face folder, and base.model is {self.base.path.name}",
                "Set base.model to the folder, or ask the server in evaluate.endpoints",
            )
        alone = settings.server is not None and not settings.quantizations
        return [] if alone else served_files(self.base, settings.quantizations, self.root, reporter)

    @cached_property
    def renderer(self) -> Renderer:
        from journeyman.rendering.renderer import Renderer

        return Renderer(self.base)

    @cached_property
    def sources(self) -> list[Source]:
        """The log files that data.sources names, in order, with folders and globs expanded."""
        from journeyman.sources.files import log_sources

        return log_sources(self.root, [STDIN_FILE if name == STDIN else name for name in self.config.data.sources])


def place_of(stage: str) -> Place:
    """The place of a stage; raises UsageError if there is no such stage."""
    if stage not in PLACES:
        raise UsageError(f"unknown stage {stage!r}", f"One of: {', '.join(PLACES)}")
    return PLACES[stage]


def made_so_far(root: Path) -> list[tuple[str, str, str]]:
    """(stage, file, SHA-256) of everything from the logs to the evaluation, as recorded in the manifests."""
    read = read_result(root, "ingest")[0].inputs
    made = [("logs", name.removeprefix(SOURCE), read[name]) for name in read if name.startswith(SOURCE)]
    evaluation = typed_result(root, "evaluate", EvaluationManifest)
    made += [("base", Path(one.path).name, one.sha256) for one in evaluation.files.values() if one.merged is None]
    for stage, place in PLACES.items():
        if (root / place.folder / MANIFEST).is_file():
            stamp, _ = read_result(root, stage)
            made += [(stage, f"{place.folder}/{file}", digest) for file, digest in stamp.files.items()]
        if stage == "evaluate":
            made += [(stage, f"{one.file} ({one.lines} lines)", one.sha256) for one in evaluation.evidence]
    return made


def run_of(place: Path) -> Path | None:
    """The run whose bundle, or one of whose targets, is at a place; None if it is elsewhere, or is a run itself."""
    found = place.resolve()
    if found.name == PLACES["export"].folder:
        return found.parent
    return found.parent.parent if found.parent.name == TARGETS_FOLDER else None


def folder_with_config(folder: Path) -> Path | None:
    """The folder whose config file and keys apply if `folder` is served: itself or its run; None: there is none."""
    return next((one for one in (folder, run_of(folder)) if one is not None and (one / CONFIG_NAME).is_file()), None)


def beside(root: Path, path: Path) -> list[Path]:
    """Where to look for a file after a run was moved: in the run's folder, at the old path, or next to the folder."""
    return [root / path.name, path, root.resolve().parent / path.name]


def read_result(root: Path, stage: str) -> tuple[Stamp, BaseModel]:
    """The stamp and the result of a finished stage, without a config.

    Raises:
        InputError: the stage has not been run, its folder is a link, or its manifest is damaged (see read_manifest).
    """
    path = root / place_of(stage).folder / MANIFEST
    refuse_link(path.parent)
    if not path.is_file():
        raise InputError(
            f"{path}: the stage {stage!r} has not been run",
            f"Run: journeyman run --until {stage} --dir {shlex.quote(str(root))}",
        )
    return read_manifest(path, stage, PLACES[stage].makes)


def typed_result(root: Path, stage: str, kind: type[_M]) -> _M:
    """The result of a finished stage as its manifest class; raises as read_result does."""
    result = read_result(root, stage)[1]
    assert isinstance(result, kind), f"{stage} makes {type(result).__name__}, not {kind.__name__}"
    return result
