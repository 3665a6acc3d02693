"""The verbs. Each is a thin skin on the library; stdout is the result, stderr the progress.

Exit codes: 0 ok, 1 failed, 2 usage, 3 the verdict is not "deploy", 130 interrupted and resumable.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import journeyman
from journeyman.cli.say import prepare_streams, say, say_json, say_lines
from journeyman.errors import JourneymanError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turns logged agent interactions into a small local model, with evidence.",
)

Folder = Annotated[Path, typer.Option("--dir", "-d", help="the run folder, with journeyman.toml")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="override a key: --set train.lora.rank=16")]
Redo = Annotated[bool, typer.Option("--redo", help="make stale stages again; the old are kept in superseded/")]
Override = Annotated[str | None, typer.Option("--override", help="export against the verdict; the reason is recorded")]
OtherEngine = Annotated[
    bool,
    typer.Option("--allow-other-engine", help="export though the engine installed here is not the evaluated one"),
]
Detach = Annotated[bool, typer.Option("--detach", help="work on without this terminal: see status and stop")]
HERE = Path()


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        say(f"journeyman {journeyman.__version__}")
        raise typer.Exit


@app.command()
def demo(folder: Annotated[Path, typer.Argument(help="where the demo run goes")] = Path("demo-run")) -> None:
    """Run the whole loop on the shipped interactions and the embedded model, in a few minutes."""
    from journeyman.cli.demo import run_demo

    run_demo(folder)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="the new run folder")] = HERE,
    logs: Annotated[
        list[str] | None,
        typer.Option("--from", help="your logs, a file, folder or quoted glob: propose a config from a sample of them"),
    ] = None,
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Write a commented journeyman.toml, with --from one that fits your logs."""
    from journeyman.cli.init import write_config, write_proposed
    from journeyman.errors import UsageError

    if rest:
        raise UsageError(
            f"init takes one folder, not {folder} and {' '.join(rest)}",
            "If the shell replaced a glob by its files, quote it: journeyman init my-run --from 'logs/*.jsonl'",
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
) -> None:
    """Run all stages: what is fresh is skipped, what was interrupted goes on."""
    _run(until, folder, settings, redo, detached, override=override, other_engine=other_engine)


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
) -> None:
    from journeyman.cli.flags import check_run_flags
    from journeyman.cli.running import Invocation, detach_stages, print_results, run_bisect, run_stages

    check_run_flags(until, redo, override, other_engine)
    again = Invocation(folder, until, settings or [], override, other_engine, bisect)
    if detached:
        detach_stages(again, redo=redo)
        return
    from journeyman.errors import NoGo, NotDeployable
    from journeyman.manifests import DecisionManifest
    from journeyman.runs import typed_result

    try:
        run_stages(again, redo=redo)
    except NoGo:
        raise
    except NotDeployable:
        print_results(folder, "decide")
        raise
    print_results(folder, until)
    if bisect:
        run_bisect(again)
    if until in ("decide", "export") and typed_result(folder, "decide", DecisionManifest).verdict != "deploy":
        raise typer.Exit(3)


def _stage_verb(name: str, text: str) -> None:
    def verb(folder: Folder = HERE, settings: Settings = None, redo: Redo = False, detached: Detach = False) -> None:
        _run(name, folder, settings, redo, detached)

    app.command(name, help=text)(verb)


@app.command()
def ingest(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    detached: Detach = False,
    explain: Annotated[
        Path | None, typer.Option(help="show how one row of this file is read, field by field; nothing is stored")
    ] = None,
    line: Annotated[
        int | None, typer.Option(help="which row, by its line or element; with --explain; default: 1")
    ] = None,
) -> None:
    """Read the logs, reject what is no interaction, and report what they say."""
    from journeyman.cli.flags import refuse_ignored

    if explain is None:
        refuse_ignored({"--line": line}, "without --explain", "Run: journeyman ingest --explain FILE --line N")
        _run("ingest", folder, settings, redo, detached)
        return
    refuse_ignored({"--redo": redo, "--detach": detached}, "with --explain, which stores nothing", "Leave it out")
    from journeyman.cli.explain import print_explanation

    print_explanation(folder, explain, 1 if line is None else line, settings or [])


_stage_verb("curate", "Filter, remove repeats, render and split; runs what comes before where needed.")
_stage_verb("plan", "State steps, memory and time, and fix the decision rules.")
_stage_verb("train", "Train the adapter; goes on where it was interrupted.")


@app.command()
def evaluate(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    detached: Detach = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="then show where torch, llama.cpp and merged files part, and by how much")
    ] = False,
) -> None:
    """Ask all arms the sealed rows through llama.cpp, and judge."""
    _run("evaluate", folder, settings, redo, detached, bisect=bisect)


_stage_verb("decide", "Apply the plan's rules: deploy, iterate, abort or insufficient, role by role.")


@app.command()
def export(
    folder: Folder = HERE,
    settings: Settings = None,
    redo: Redo = False,
    override: Override = None,
    other_engine: OtherEngine = False,
) -> None:
    """Lay down the files to deploy."""
    _run("export", folder, settings, redo, override=override, other_engine=other_engine)


@app.command()
def status(
    folder: Folder = HERE,
    watching: Annotated[bool, typer.Option("--watch", help="keep looking until the work ends")] = False,
) -> None:
    """Say what is at work, which stages are made, and what they found."""
    from journeyman.cli.background import watch
    from journeyman.cli.show import print_status

    if watching:
        watch(folder)
    print_status(folder)


@app.command()
def stop(folder: Folder = HERE) -> None:
    """Ask the journeyman at work in the folder to save its state and end, and wait for it."""
    from journeyman.cli.background import stop as stop_work

    stop_work(folder)


@app.command()
def show(
    stage: Annotated[str, typer.Argument(help="ingest, curate (or dataset), plan, train, evaluate, decide or export")],
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="the manifest as JSON")] = False,
    row: Annotated[int | None, typer.Option(help="with dataset: show what is trained in this row, from 1")] = None,
    split: Annotated[str | None, typer.Option(help="with --row: train, val or test; default: train")] = None,
) -> None:
    """Show a stage's result; `show dataset --row N` shows every token of a row and whether it is trained."""
    from journeyman.cli.flags import refuse_ignored

    stage = "curate" if stage == "dataset" else stage
    if row is not None:
        refuse_ignored({"--json": as_json}, "with --row", "The row as JSON is a line of 02-dataset/train.jsonl")
        from journeyman.cli.mask import print_row

        print_row(folder, stage, split or "train", row)
        return
    refuse_ignored({"--split": split}, "without --row", "Run: journeyman show dataset --row 1 --split val")
    from journeyman.cli.show import print_stage

    print_stage(folder, stage, as_json)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="a run folder, or a bundle's")] = HERE) -> None:
    """Compare every file of a run or a bundle with what was made: exit 0 if all are, 1 if any has changed."""
    from journeyman.cli.verify import print_verified

    if not print_verified(folder):
        raise typer.Exit(1)


@app.command()
def serve(
    folder: Folder = HERE,
    port: Annotated[int | None, typer.Option(help="overrides serve.port; 0 takes a free one")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="a name in Host to answer to beside loopback's; adds to serve.allow_hosts")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="variable with the key that clients must send; overrides serve.key_env")
    ] = None,
    allow_other_engine: Annotated[
        bool, typer.Option("--allow-other-engine", help="serve with another engine than the evaluated one")
    ] = False,
) -> None:
    """Serve the bundle on an OpenAI-compatible port; the role is the model's name."""
    from journeyman.cli.serve import serve_bundle

    serve_bundle(folder, port, allow_host or [], key_env, allow_other_engine=allow_other_engine)


@app.command()
def doctor() -> None:
    """Check the machine: processor, memory, base model, engine, sandbox; list the checks."""
    from journeyman.cli.doctor import examine

    if not examine():
        raise typer.Exit(1)


def main() -> None:
    """The entry point: every error becomes one clear message and an exit code."""
    _open_standard_files()
    prepare_streams()
    try:
        app()
    except JourneymanError as error:
        if "--json" in sys.argv[1:]:  # on stdout, where a script looks; the sentence goes to stderr as ever
            say_json({"error": error.as_json()})
        _fail(str(error), error.exit_code, error.details)
    except OSError as error:
        hint = "Free some space and run it again" if error.errno == errno.ENOSPC else "Check the path and its rights"
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}. {hint}", 1)
    except KeyboardInterrupt:
        _fail("stopped. The same command goes on from the last checkpoint", 130)
    except Exception:  # a fault of ours: its traceback may quote a log
        say_lines(traceback.format_exc(), err=True)
        sys.exit(1)


def _open_standard_files() -> None:
    """Where a caller closed stdin, stdout or stderr: else the next file opened takes the number, and what a library
    says goes into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _fail(text: str, code: int, details: Sequence[str] = ()) -> None:
    for line in (f"journeyman: {text}", *details):
        say(line, err=True)
    sys.exit(code)
