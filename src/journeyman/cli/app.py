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
from journeyman.cli.keys import keys
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

Folder = Annotated[Path, typer.Option("--dir", "-d", help="the run folder, which contains journeyman.toml")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="override a config key, e.g. --set train.lora.rank=16")
]
Redo = Annotated[bool, typer.Option("--redo", help="rerun stale stages; the old results move to superseded/")]
Override = Annotated[str | None, typer.Option("--override", help="export despite the verdict; the reason is recorded")]
OtherEngine = Annotated[
    bool,
    typer.Option("--allow-other-engine", help="export even if the installed engine is not the one that was evaluated"),
]
Detach = Annotated[bool, typer.Option("--detach", help="run in the background; see status and stop")]
Ray = Annotated[
    bool,
    typer.Option(
        "--ray", help="work on the Ray cluster that runs here or that RAY_ADDRESS names (cluster.address = 'auto')"
    ),
]
HERE = Path()


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
) -> None:
    """Run all stages; fresh ones are skipped, an interrupted one is resumed."""
    _run(until, folder, settings, redo, detached, override=override, other_engine=other_engine, ray=ray)


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
) -> None:
    from journeyman.cli.flags import check_run_flags
    from journeyman.cli.running import Invocation, detach_stages, print_results, run_bisect, run_stages, run_targets

    check_run_flags(until, redo, override, other_engine)
    if targets is not None:
        targets.check()
    settings = [*["cluster.address=auto"] * ray, *(settings or [])]
    again = Invocation(folder, until, settings, override, other_engine, bisect)
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
_stage_command("plan", "Estimate steps, memory and time, and fix the decision rules.")
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


_stage_command("decide", "Apply the plan's rules to each role: deploy, iterate, abort or insufficient.")


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
    stage: Annotated[str, typer.Argument(help="ingest, curate (or dataset), plan, train, evaluate, decide or export")],
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="print the manifest as JSON")] = False,
    row: Annotated[
        int | None, typer.Option(help="with dataset: show which tokens of this row are trained, counted from 1")
    ] = None,
    split: Annotated[str | None, typer.Option(help="with --row: train, val or test; default: train")] = None,
) -> None:
    """Show a stage's result; `show dataset --row N` shows each token of a row and whether it is trained."""
    from journeyman.cli.flags import refuse_ignored

    stage = "curate" if stage == "dataset" else stage
    if row is not None:
        refuse_ignored({"--json": as_json}, "with --row", "For the row as JSON, see 02-dataset/train.jsonl")
        from journeyman.cli.mask import print_row

        print_row(folder, stage, split or "train", row)
        return
    refuse_ignored({"--split": split}, "without --row", "Run: journeyman show dataset --row 1 --split val")
    from journeyman.cli.show import print_stage

    print_stage(folder, stage, as_json)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="the folder of a run or of a bundle")] = HERE) -> None:
    """Check that no file of a run or bundle has changed since it was made; exit code 1 if one has."""
    from journeyman.cli.verify import print_verified

    if not print_verified(folder):
        raise typer.Exit(1)


@app.command()
def serve(
    folder: Folder = HERE,
    port: Annotated[int | None, typer.Option(help="overrides serve.port; 0 picks a free one")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="a Host name to accept in addition to loopback and serve.allow_hosts")
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(help="environment variable with the key that clients must send; overrides serve.key_env"),
    ] = None,
    allow_other_engine: Annotated[
        bool, typer.Option("--allow-other-engine", help="serve even if the engine is not the one that was evaluated")
    ] = False,
    releases: Annotated[
        Path | None,
        typer.Option(
            help="a folder with releases: serve the current one, and each that is promoted from then on, with the "
            "settings and keys of --dir"
        ),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(help="a llama-server or an OpenAI-compatible server that answers; overrides serve.engine_url"),
    ] = None,
    llama_server: Annotated[
        str | None,
        typer.Option(help="your own llama-server, which is started to answer; overrides serve.llama_server"),
    ] = None,
) -> None:
    """Serve the bundle on a port that speaks OpenAI's and Anthropic's APIs; clients send the role as the model name."""
    from journeyman.cli.serve import serve_bundle

    serve_bundle(
        folder, port, allow_host or [], key_env,
        allow_other_engine=allow_other_engine, engine_url=engine_url, llama_server=llama_server, releases=releases,
    )  # fmt: skip


@app.command()
def record(
    folder: Folder = HERE,
    upstream: Annotated[
        str | None, typer.Option(help="base URL of the API that answers; overrides record.upstream")
    ] = None,
    port: Annotated[int | None, typer.Option(help="overrides record.port; 0 picks a free one")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="count requests, answers and rows, and name what is missing")
    ] = False,
    learn: Annotated[bool, typer.Option("--learn", help="print rules for roles, from what was recorded")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --check: print JSON")] = False,
) -> None:
    """Record a teacher: a port in front of its API, which writes every exchange as a row that ingest reads."""
    from journeyman.cli.record import run

    run(folder, upstream, port, check=check, learn=learn, as_json=as_json)


Releases = Annotated[
    Path | None, typer.Option("--releases", help="the folder with the releases; default: releases/ in or beside SOURCE")
]
Why = Annotated[str, typer.Option(help="for the history")]


@app.command()
def promote(
    source: Annotated[Path, typer.Argument(help="the folder of a run or of a bundle")] = HERE,
    releases: Releases = None,
    why: Why = "",
    override: Annotated[
        str | None, typer.Option(help="promote it without a deploy verdict; the reason is recorded")
    ] = None,
) -> None:
    """Keep a verified copy of a bundle under a number, and make it the one that is served."""
    from journeyman.cli.releases import promote_bundle

    promote_bundle(source, releases, why, override)


@app.command()
def rollback(
    source: Annotated[
        Path, typer.Argument(help="the folder that contains releases/, or a run or bundle beside it")
    ] = HERE,
    releases: Releases = None,
    to: Annotated[int | None, typer.Option(help="the release's number; default: the one before")] = None,
    why: Why = "",
) -> None:
    """Serve an earlier release again."""
    from journeyman.cli.releases import roll_back

    roll_back(source, releases, to, why)


@app.command(name="releases")
def show_releases(
    source: Annotated[
        Path, typer.Argument(help="the folder that contains releases/, or a run or bundle beside it")
    ] = HERE,
    releases: Releases = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record as JSON")] = False,
) -> None:
    """List the releases, which one is current, and who promoted what and why."""
    from journeyman.cli.releases import print_releases

    print_releases(source, releases, as_json)


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
