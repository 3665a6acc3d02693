"""The commands about what is served, recorded and watched, each a thin wrapper around the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from journeyman.cli.options import HERE, Folder, Settings

deployed = typer.Typer()


@deployed.command()
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


@deployed.command()
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


@deployed.command()
def route(
    role: Annotated[str | None, typer.Argument(help="a role; without one, all of them are listed")] = None,
    mode: Annotated[str | None, typer.Argument(help="teacher, shadow, canary, fallback or student")] = None,
    folder: Folder = HERE,
    share: Annotated[
        float | None, typer.Option(help="of a canary: the share of conversations that the student answers")
    ] = None,
    why: Annotated[str, typer.Option(help="for the history")] = "",
    history: Annotated[bool, typer.Option("--history", help="list the changes, too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print routes and history as JSON")] = False,
) -> None:
    """Say who answers a role's requests, the teacher or the student, without restarting the recorder."""
    from journeyman.cli.route import run

    run(folder, role, mode, share=share, why=why, history=history, as_json=as_json)


@deployed.command("ask-again")
def ask_again(
    folder: Folder = HERE,
    endpoint: Annotated[
        str | None, typer.Option(help="base URL of the teacher's API, up to /v1; overrides ask_again.url")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the model's name there; overrides ask_again.model")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="environment variable with its key; overrides ask_again.key_env")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="kinds of rows, such as cut,failed; default: cut,failed,asks-back,no-answer; also: refused, mock"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask without confirmation")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be asked and what it costs")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="ask again where the new answer was cut, refused or not usable")
    ] = False,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Ask a teacher anew for the rows that were cut, failed, asked back or have no answer, at a sufficient limit."""
    from journeyman.cli.ask_again import Flags, run

    flags = Flags(endpoint, model, key_env, only, yes, dry_run, retry_failed, as_json)
    run(folder, settings or [], flags)


@deployed.command()
def monitor(
    folder: Folder = HERE,
    since: Annotated[str | None, typer.Option(help="how far back, such as 90m, 24h or 7d")] = None,
    role: Annotated[str | None, typer.Option(help="only this role")] = None,
    watching: Annotated[bool, typer.Option("--watch", help="look again every monitor.every_s seconds")] = False,
    alert: Annotated[
        bool, typer.Option("--alert", help="send alerts to monitor.webhook and monitor.command; once, or with --watch")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show by role who answers what was recorded, how well, how fast, whether inputs drift and when to train again."""
    from journeyman.cli.monitor import run

    run(folder, since, role, as_json=as_json, watching=watching, alert=alert)


Releases = Annotated[
    Path | None, typer.Option("--releases", help="the folder with the releases; default: releases/ in or beside SOURCE")
]
Why = Annotated[str, typer.Option(help="for the history")]


@deployed.command()
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


@deployed.command()
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


@deployed.command(name="releases")
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


@deployed.command()
def ui(
    folder: Annotated[Path, typer.Argument(help="the folder below which runs are shown")] = HERE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="on 127.0.0.1; 0 picks a free one")] = 8013,
    no_open: Annotated[bool, typer.Option("--no-open", help="only print the address; do not open a browser")] = False,
) -> None:
    """Show runs in a browser: their state, curves, rows and verdicts; stop, promote and roll back."""
    from journeyman.cli.ui import show_page

    show_page(folder, port, browser=not no_open)
