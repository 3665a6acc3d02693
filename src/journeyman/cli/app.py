"""The commands, each a thin wrapper around the library. Results go to stdout, progress to stderr.

Exit codes: 0 success, 1 failure, 2 usage error, 3 the verdict is not "deploy", 130 interrupted and resumable.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import journeyman
from journeyman.cli.deployed_app import deployed
from journeyman.cli.keys import keys
from journeyman.cli.options import HERE, Detach, Fit, Folder, OtherEngine, Override, Ray, Redo, Settings
from journeyman.cli.say import prepare_streams, say, say_json, say_lines
from journeyman.errors import JourneymanError

if TYPE_CHECKING:
    from journeyman.cli.running import TargetFlags

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn logs of LLM agents into a small local model, with evidence that it can take over.",
)

app.add_typer(keys, name="keys")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        say(f"journeyman {journeyman.__version__}")
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="the folder to run the demo in")] = Path("demo-run"),
    base: Annotated[str | None, typer.Option(help="another base: anything that base.model may name")] = None,
    chat_template: Annotated[str | None, typer.Option(help="its chat template, if it has none")] = None,
) -> None:
    """Run the whole loop on the shipped data and the embedded model, in a few minutes."""
    from journeyman.cli.demo import run_demo

    run_demo(folder, base, chat_template)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="the new run folder")] = HERE,
    logs: Annotated[
        list[str] | None,
        typer.Option("--from", help="a log file, folder or quoted glob: propose a config based on a sample of it"),
    ] = None,
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Write a commented journeyman.toml; with --from, one that fits your logs."""
    from journeyman.cli.init import write_config, write_proposed
    from journeyman.errors import UsageError

    if rest:
        raise UsageError(
            f"init takes one folder, not {folder} and {' '.join(rest)}",
            "If the shell expanded a glob, quote it: journeyman init my-run --from 'logs/*.jsonl'",
        )
    if logs:
        write_proposed(folder, logs)
        return
    say(f"{write_config(folder)}: set data.sources to your logs, then: journeyman run --dir {folder}")


@app.command()
def run(
    until: Annotated[str, typer.Option(help="the last stage to run")] = "export",
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    override: Override = None,
    other_engine: OtherEngine = False,
    detached: Detach = False,
    ray: Ray = False,
    from_recorded: Annotated[
        bool, typer.Option("--from-recorded", help="train on what was recorded in this folder, besides data.sources")
    ] = False,
    from_asked_again: Annotated[
        bool, typer.Option("--from-asked-again", help="train on the answers of ask-again too, besides data.sources")
    ] = False,
    fit: Fit = False,
) -> None:
    """Run all stages; fresh ones are skipped, an interrupted one is resumed."""
    if from_recorded:
        from journeyman.cli.record import gathered_source

        settings = [*(settings or []), gathered_source(folder)]
    if from_asked_again:
        from journeyman.cli.ask_again import asked_again_source

        settings = [*(settings or []), asked_again_source(folder, settings or [])]
    _run(until, folder, settings, redo, detached, override=override, other_engine=other_engine, ray=ray, fit=fit)


def _run(
    until: str,
    folder: Path,
    settings: list[str] | None,
    redo: bool,
    detached: bool = False,
    *,
    override: str | None = None,
    other_engine: bool = False,
    bisect: bool = False,
    targets: TargetFlags | None = None,
    ray: bool = False,
    fit: bool = False,
) -> None:
    from journeyman.cli.flags import check_run_flags
    from journeyman.cli.running import Invocation, detach_stages, print_results, run_bisect, run_stages, run_targets

    check_run_flags(until, redo, override, other_engine)
    if targets is not None:
        targets.check()
    settings = [*["cluster.address=auto"] * ray, *(settings or [])]
    again = Invocation(folder, until, settings, override, other_engine, bisect, fit)
    if detached:
        detach_stages(again, redo=redo)
        return
    from dataclasses import replace

    from journeyman.errors import NoGo, NotDeployable
    from journeyman.manifests import DecisionManifest
    from journeyman.runs import typed_result

    if fit:
        from journeyman.cli.fitting import fitted

        again = fitted(again, redo=redo)
    try:
        run_stages(again, redo=redo, measured_anew=redo and until == "plan" and not fit)
    except NoGo:
        raise
    except NotDeployable:
        print_results(replace(again, until="decide"))
        raise
    print_results(again)
    if bisect:
        run_bisect(again)
    if targets is not None and targets.names:
        run_targets(again, targets)
    if until in ("decide", "export") and typed_result(folder, "decide", DecisionManifest).verdict != "deploy":
        raise typer.Exit(3)


def _stage_command(name: str, text: str) -> None:
    def command(
        folder: Folder = HERE, settings: Settings = None, redo: Redo = False, detached: Detach = False, ray: Ray = False
    ) -> None:
        _run(name, folder, settings, redo, detached, ray=ray)

    app.command(name, help=text)(command)


@app.command()
def ingest(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    detached: Detach = False,
    ray: Ray = False,
    explain: Annotated[
        Path | None,
        typer.Option(help="show how one row of this file is read, field by field, without storing anything"),
    ] = None,
    line: Annotated[
        int | None, typer.Option(help="with --explain: the row's line or element number; default: 1")
    ] = None,
) -> None:
    """Read the logs, reject what is not an interaction, and summarize the rest."""
    from journeyman.cli.flags import refuse_ignored

    if explain is None:
        refuse_ignored({"--line": line}, "without --explain", "Run: journeyman ingest --explain FILE --line N")
        _run("ingest", folder, settings, redo, detached, ray=ray)
        return
    refuse_ignored(
        {"--redo": redo, "--detach": detached, "--ray": ray}, "with --explain, which stores nothing", "Leave it out"
    )
    from journeyman.cli.explain import print_explanation

    print_explanation(folder, explain, 1 if line is None else line, settings or [])


_stage_command("curate", "Filter, deduplicate, render and split the rows; runs earlier stages if needed.")


@app.command()
def plan(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    detached: Detach = False,
    ray: Ray = False,
    explain: Annotated[
        str | None, typer.Option(metavar="CODE", help="say what an error or a warning of the plan means")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="check the settings of another trainer in this TOML file, and what you expect of them"),
    ] = None,
    fit: Fit = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="then measure, on validation rows, whether to tune at all: see probe/probe.md"),
    ] = False,
    probe_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="with --probe: for tuning on parts of the rows; default: 10m")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="with --probe: print its record as JSON")] = False,
) -> None:
    """Say what training will cost, what its rows can show and what is wrong, and fix the decision rules."""
    from journeyman.cli.flags import check_probe_flags, refuse_ignored

    check_probe_flags(probe, probe_budget, as_json, {"--detach": detached, "--ray": ray, "--fit": fit})
    if explain is None and recipe is None:
        if probe:
            from journeyman.cli.probe import plan_and_probe

            plan_and_probe(folder, settings or [], probe_budget, redo=redo, as_json=as_json)
        else:
            _run("plan", folder, settings, redo, detached, ray=ray, fit=fit)
        return
    given = {"--set": settings, "--redo": redo, "--detach": detached, "--ray": ray, "--fit": fit, "--probe": probe}
    refuse_ignored(given, "with --explain and --recipe, which run nothing", "Leave it out")
    from journeyman.cli.plan import check_recipe, print_explained

    if explain is not None:
        refuse_ignored({"--recipe": recipe}, "with --explain", "Run them one after the other")
        print_explained(explain)
    elif recipe is not None:
        check_recipe(recipe)


_stage_command("train", "Train the adapter; resumes where it was interrupted.")


@app.command()
def evaluate(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    detached: Detach = False,
    ray: Ray = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="then show where torch, llama.cpp and merged files start to differ")
    ] = False,
) -> None:
    """Put the held-out test set to every arm and score the answers."""
    _run("evaluate", folder, settings, redo, detached, bisect=bisect, ray=ray)


@app.command("cross-validate")
def cross_validate(
    folder: Folder = HERE,
    settings: Settings = None,
    folds: Annotated[
        int, typer.Option(help="parts of the training rows; each is scored by adapters of the others")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train and score the recipe on folds of the training rows, for small logs; the held-out rows stay unread."""
    from journeyman.cli.cross_validate import run as run_folds

    run_folds(folder, folds, settings or [], as_json=as_json)


_stage_command("decide", "Apply the plan's rules to each role: deploy, iterate, abort or insufficient.")


@app.command()
def iterate(
    folder: Folder = HERE,
    settings: Settings = None,
    budget: Annotated[str, typer.Option(help="time for all of it, such as 30m or 2h")] = "2h",
    looks: Annotated[int, typer.Option(help="further looks at the held-out rows, each with half the error")] = 2,
    applies: Annotated[bool, typer.Option("--apply", help="write the settings found into journeyman.toml")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print how it ended as JSON")] = False,
) -> None:
    """Carry out what an iterate verdict advises: on validation rows first, then in the run if it is better there.

    The run's results are then replaced by those with the settings found; the old ones move to superseded/. The config
    file keeps its settings unless --apply is given, and until then export refuses the run as stale. The exit code is 3
    unless the verdict is deploy.
    """
    from journeyman.cli.iterate import run as run_iterations

    run_iterations(folder, settings or [], budget=budget, looks=looks, applies=applies, as_json=as_json)


@app.command()
def export(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    override: Override = None,
    other_engine: OtherEngine = False,
    target: Annotated[
        list[str] | None,
        typer.Option(help="also make this: adapter, hf, gguf, ollama, llama.cpp, vllm, lmstudio or docker; repeatable"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="with --target: the folder for the targets; default: targets/ in the run")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="with --target gguf or lmstudio: the format of merged weights, such as Q8_0")
    ] = None,
    allow_unevaluated: Annotated[
        str | None,
        typer.Option(help="with --target: merged files may be served without an evaluation; the reason is recorded"),
    ] = None,
) -> None:
    """Build the bundle of files to deploy, and with --target files for other programs."""
    from journeyman.cli.running import TargetFlags

    targets = TargetFlags(tuple(dict.fromkeys(target or [])), out, quantization, allow_unevaluated)
    _run("export", folder, settings, redo, override=override, other_engine=other_engine, targets=targets)


@app.command()
def search(
    folder: Folder = HERE,
    settings: Settings = None,
    budget: Annotated[
        str | None, typer.Option(help="computing time, such as 90s, 30m or 1h30m; overrides search.budget")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the candidates; overrides search.seed")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="write what is recommended into journeyman.toml, also after the search")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print trials and result as JSON")] = False,
) -> None:
    """Try other training settings within a budget, score them on validation rows, and say if one is better."""
    from journeyman.cli.search import Flags, run

    run(folder, settings or [], Flags(budget, seed, apply, as_json))


@app.command()
def status(
    folder: Folder = HERE,
    watching: Annotated[bool, typer.Option("--watch", help="keep updating until the run ends")] = False,
) -> None:
    """Show what is running, which stages are finished, and their results."""
    from journeyman.cli.background import watch
    from journeyman.cli.show import print_status

    if watching:
        watch(folder)
    print_status(folder)


@app.command()
def stop(folder: Folder = HERE) -> None:
    """Ask the journeyman running in the folder to save its state and exit, and wait for it."""
    from journeyman.cli.background import stop as stop_work

    stop_work(folder)


@app.command()
def show(
    stage: Annotated[
        str,
        typer.Argument(
            help="ingest, curate (or dataset), plan, probe, search, train, evaluate, decide, export, "
            "cross-validation or iterations"
        ),
    ],
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="print as JSON: a stage's manifest, or the record")] = False,
    row: Annotated[
        int | None, typer.Option(help="with dataset: show which tokens of this row are trained, counted from 1")
    ] = None,
    split: Annotated[str | None, typer.Option(help="with --row: train, val or test; default: train")] = None,
) -> None:
    """Show a stage's result; `show dataset --row N` shows each token of a row and whether it is trained."""
    from journeyman.cli.flags import refuse_ignored

    if stage == "probe" and row is None and split is None:
        from journeyman.cli.probe import show_probe

        show_probe(folder, as_json=as_json)
        return
    stage = "curate" if stage == "dataset" else stage
    if row is not None:
        refuse_ignored({"--json": as_json}, "with --row", "For the row as JSON, see 02-dataset/train.jsonl")
        from journeyman.cli.mask import print_row

        print_row(folder, stage, split or "train", row)
        return
    refuse_ignored({"--split": split}, "without --row", "Run: journeyman show dataset --row 1 --split val")
    if stage == "search":
        from journeyman.cli.search import show as show_search

        show_search(folder, as_json)
        return
    from journeyman.cli.show import print_stage

    print_stage(folder, stage, as_json)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="the folder of a run or of a bundle")] = HERE) -> None:
    """Check that no file of a run or bundle has changed since it was made; exit code 1 if one has."""
    from journeyman.cli.verify import print_verified

    if not print_verified(folder):
        raise typer.Exit(1)


app.add_typer(deployed)


@app.command()
def doctor() -> None:
    """Check this machine: processor, memory, base model, engine, sandbox; list checks and log formats."""
    from journeyman.cli.doctor import examine

    if not examine():
        raise typer.Exit(1)


def main() -> None:
    """Entry point: turns every error into one clear message and an exit code."""
    _open_standard_files()
    prepare_streams()
    try:
        app()
    except JourneymanError as error:
        if "--json" in sys.argv[1:]:  # on stdout, where a script looks; the sentence goes to stderr as always
            say_json({"error": error.as_json()})
        _fail(str(error), error.exit_code, error.details)
    except OSError as error:
        hint = "Free some space and run it again" if error.errno == errno.ENOSPC else "Check the path and permissions"
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}. {hint}", 1)
    except KeyboardInterrupt:
        _fail("stopped. The same command resumes from the last checkpoint", 130)
    except Exception:  # a bug of ours; its traceback may quote a log
        say_lines(traceback.format_exc(), err=True)
        sys.exit(1)


def _open_standard_files() -> None:
    """Reopen stdin, stdout or stderr if the caller closed it: otherwise the next file to be opened would get its
    number, and a library's output would be written into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _fail(text: str, code: int, details: Sequence[str] = ()) -> None:
    for line in (f"journeyman: {text}", *details):
        say(line, err=True)
    sys.exit(code)
