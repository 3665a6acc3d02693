"""Shared by the commands that run stages."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import disk_error, remove_quietly, write_model
from journeyman.cli.background import detach
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.say import result_console, say_on
from journeyman.cli.tables import (
    plan_lines,
    print_bisect,
    print_lint_table,
    print_log_table,
    print_plan,
    print_verdict_table,
    summary_line,
)
from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.errors import Interrupted, UsageError
from journeyman.events import Warned
from journeyman.locking import locked
from journeyman.manifests import (
    AdapterManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    FittedSetting,
    IngestManifest,
    PlanManifest,
)
from journeyman.pipeline import run_pipeline, stage_named
from journeyman.runs import SEALED, STDIN, STDIN_FILE, TARGETS_FOLDER, Run, typed_result
from journeyman.stage_calls import no_go, outdated_lints


@dataclass(frozen=True)
class Invocation:
    """What a command does, and the command line that repeats it. `fitted`: those of the settings that --fit chose."""

    folder: Path
    until: str
    settings: Sequence[str] = ()
    override: str | None = None
    other_engine: bool = False
    bisect: bool = False
    fit: bool = False
    fitted: Sequence[FittedSetting] = ()

    def arguments(self) -> list[str]:
        """What follows `journeyman`."""
        command = ["evaluate", "--bisect"] if self.bisect else ["run", "--until", self.until]
        settings = [part for one in self.settings for part in ("--set", one)]
        override = [] if self.override is None else ["--override", self.override]
        return [
            *command,
            "--dir",
            str(self.folder),
            *settings,
            *override,
            *["--allow-other-engine"] * self.other_engine,
            *["--fit"] * self.fit,
        ]

    def line(self) -> str:
        """The whole command line, quoted for a shell."""
        return shlex.join(["journeyman", *self.arguments()])


@dataclass(frozen=True)
class TargetFlags:
    """The flags of `journeyman export` about targets.

    Attributes:
        out: the folder below which each target gets its own; None: targets/ in the run's folder.
        quantization: the format of merged GGUF files; None: the base's own, but at least 8 bits.
        allowed: why merged files may be served although they were not evaluated; None: they may not.
    """

    names: Sequence[str] = ()
    out: Path | None = None
    quantization: str | None = None
    allowed: str | None = None

    def check(self) -> None:
        """Raises UsageError if a flag means nothing or has no effect."""
        from journeyman.cli.flags import check_target_flags

        check_target_flags(self.names, self.out, self.quantization, self.allowed)


def run_stages(what: Invocation, *, redo: bool = False, command: str = "", measured_anew: bool = False) -> None:
    """Runs the pipeline in a folder up to a stage, with progress on stderr.

    Args:
        measured_anew: see run_pipeline.
        command: the command that resumes after an interruption, if it is not the one that `what` gives.
    """
    folder, until = what.folder, what.until
    config = load_config(folder / CONFIG_NAME, list(what.settings))
    run = Run(folder, config, what.override, what.other_engine, what.fitted)
    keep_piped(folder, run.config)
    again = command or what.line()
    with terminal_reporter(folder, again) as reporter:
        for warning in config.warnings:
            reporter.say(f"warning: {warning}")
        try:
            for outcome in run_pipeline(run, until, reporter, redo=redo, measured_anew=measured_anew):
                number = stage_named(outcome.stage).folder[:2]
                took = "unchanged" if outcome.action == "fresh" else f"{outcome.action} in {outcome.seconds:.1f} s"
                reporter.say(f"{number} {outcome.stage:<9} {took}: {summary_line(outcome.result)}")
                if isinstance(outcome.result, PlanManifest) and (note := outdated_lints(outcome.result, config)):
                    reporter.say(note)
                if isinstance(outcome.result, PlanManifest) and (until == "plan" or outcome.action != "fresh"):
                    # The page contains the warnings; the command `plan` prints it at its end.
                    for line in plan_lines(outcome.result, config) if until != "plan" else ():
                        reporter.say(line)
                    continue
                for warning in getattr(outcome.result, "warnings", []):
                    reporter.tell(Warned(warning.reason()))
            if what.other_engine:
                for line in _other_engine(folder, config):
                    reporter.say(line)
        except Interrupted as stop:
            raise Interrupted(stop.what, f"The same command resumes from here: {again}") from stop


def _other_engine(folder: Path, config: Config) -> list[str]:
    """What to report about an export if the installed engine is not the one that was evaluated."""
    from journeyman.inference.engines import engine_of
    from journeyman.serving.evaluated import check_engine

    evaluated = typed_result(folder, "evaluate", EvaluationManifest).engine
    return check_engine(evaluated, engine_of(config.evaluate, folder), folder, allow_other=True)


def detach_stages(what: Invocation, *, redo: bool = False) -> None:
    """Runs the stages in a background process; raises as background.detach does."""
    keep_piped(what.folder, load_config(what.folder / CONFIG_NAME, list(what.settings)))
    detach(what.folder, [*what.arguments(), *["--redo"] * redo])


def run_bisect(what: Invocation) -> None:
    """Compares the tuned model at each step from training to a file, and writes bisect.json next to the config file.

    Raises:
        Interrupted: asked to stop; the next run starts from the beginning.
        UsageError: another journeyman is running in the folder.
    """
    folder = what.folder
    run = Run(folder, load_config(folder / CONFIG_NAME, list(what.settings)))
    with terminal_reporter(folder, what.line()) as reporter, locked(folder):
        from journeyman.stages.bisect import bisect  # imports torch: seconds in which the folder must count as busy

        result = bisect(
            run.file("evaluate", "predictions.jsonl"),
            run.file("curate", SEALED),
            run.result("train", AdapterManifest),
            run.checked_folder("train"),
            run.base,
            run.config,
            run.renderer,
            reporter,
            run.served[0],
        )
        write_model(folder / "bisect.json", result)
    print_bisect(result_console(), result)


def run_targets(what: Invocation, chosen: TargetFlags) -> None:
    """Makes the targets of a finished bundle, and prints what each is and what it answered.

    Raises:
        JourneymanError: as bundling.making.make_targets does.
    """
    from journeyman.bundling.making import make_targets
    from journeyman.cli.targets import print_target
    from journeyman.stage_calls import source_of

    folder = what.folder
    run = Run(folder, load_config(folder / CONFIG_NAME, list(what.settings)), what.override, what.other_engine)
    out = chosen.out or folder / TARGETS_FOLDER
    with terminal_reporter(folder, what.line()) as reporter, locked(folder):
        source = source_of(run)
        for place, bundle in make_targets(source, chosen.names, out, chosen.quantization, chosen.allowed, reporter):
            print_target(place, bundle, chosen.allowed)


def keep_piped(folder: Path, config: Config) -> None:
    """Stores stdin if data.sources names it, unless another journeyman is reading the stored copy."""
    if STDIN in config.data.sources:
        with locked(folder):
            keep_stdin(folder)


def keep_stdin(folder: Path) -> None:
    """Stores stdin in the run folder, so that the run can be resumed and checked. Readable by its owner only.

    Raises:
        DiskError: the disk is full or the folder cannot be written to; a copy from an earlier call remains.
        UsageError: nothing is piped in, and no earlier call stored anything.
    """
    place = folder / STDIN_FILE
    if sys.stdin is None or sys.stdin.isatty():
        if not place.exists():
            raise UsageError("data.sources names -, but nothing is piped in", "journeyman ingest < log.jsonl")
        return
    staged = place.with_suffix(".part")
    try:
        staged.touch(mode=0o600)
        with staged.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if staged.stat().st_size:
            staged.replace(place)
    except OSError as error:
        raise disk_error(error, place) from error
    finally:
        remove_quietly(staged)
    if not place.exists():  # otherwise nothing was piped in this time, and the copy from an earlier call is used
        raise UsageError("data.sources names -, but nothing was piped in", "journeyman ingest < log.jsonl")


def print_results(what: Invocation) -> None:
    """Prints to stdout: the logs' statistics after ingest, findings after curate, the page after plan, verdicts after
    decide and export.

    Raises:
        NoGo: the plan has errors.
    """
    folder, until, console = what.folder, what.until, result_console()
    if until == "plan":
        plan = typed_result(folder, "plan", PlanManifest)
        print_plan(console, plan, load_config(folder / CONFIG_NAME, list(what.settings)))
        say_on(console, f"this page: {folder / stage_named('plan').folder / 'plan.md'}")
        if not plan.is_go:
            raise no_go(plan)
    if until == "ingest":
        print_log_table(console, typed_result(folder, "ingest", IngestManifest))
    if until == "curate":
        print_lint_table(console, typed_result(folder, "curate", DatasetManifest))
        say_on(console, f"report: {folder / stage_named('curate').folder / 'lint.html'}")
    if until in ("decide", "export"):
        evaluation = typed_result(folder, "evaluate", EvaluationManifest)
        print_verdict_table(console, evaluation, typed_result(folder, "decide", DecisionManifest))
        say_on(console, f"report: {folder / stage_named('decide').folder / 'report.html'}")
