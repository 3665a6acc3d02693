"""`journeyman iterate` and `journeyman show iterations`."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from journeyman.api.iterating import Iterate, iterations
from journeyman.cli.grid import Column, print_grid
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.say import result_console, say, say_json, say_lines
from journeyman.errors import Interrupted
from journeyman.foreign import named
from journeyman.iterating.changes import Settings
from journeyman.iterating.ledger import Stopped, Tried
from journeyman.iterating.loop import Ended
from journeyman.iterating.telling import settings_text, told_after, told_of_look
from journeyman.search.applying import as_toml


def run(folder: Path, settings: list[str], *, budget: str, looks: int, applies: bool, as_json: bool) -> None:
    """Iterates, says why it ended and what is left, and exits with 3 unless the verdict is deploy.

    Raises:
        JourneymanError: as api.iterating.Iterate.
    """
    iterating = Iterate(folder, budget, looks, settings)
    parts = ["journeyman", "iterate", "--dir", str(folder), "--budget", budget, "--looks", str(looks)]
    line = shlex.join([*parts, *(part for one in settings for part in ("--set", one)), *["--apply"] * applies])
    with terminal_reporter(folder, line) as reporter:
        try:
            ended = iterating.run(reporter)
        except Interrupted as stop:
            found = iterating.not_in_file()
            made = (
                f"; the run is made with {settings_text(found)}, which {_file(folder)} does not have" if found else ""
            )
            raise Interrupted(f"{stop.what}{made}", f"The same command resumes from here: {line}") from stop
    if applies and ended.settings:
        iterating.apply(ended)
    if as_json:
        say_json(_as_json(ended, applied=applies and bool(ended.settings)))
    else:
        _print(ended, folder, settings, applied=applies)
    if ended.shown.decision.verdict != "deploy":
        raise typer.Exit(3)


def _print(ended: Ended, folder: Path, overrides: list[str], *, applied: bool) -> None:
    more = ended.reason.what_to_do()
    say(f"ended: {ended.reason.sentence()}" + (f" ({more})" if more else ""))
    for reason, command in ended.left:
        say(f"left for you: {reason.sentence()}" + (f" ({command})" if command else ""))
    if ended.settings:
        where = _file(folder)
        say(
            f"written into {where}:" if applied
            else f"the run is made with settings that {where} does not have; set them there, or give --apply:"
        )  # fmt: skip
        say_lines(as_toml(ended.settings))
    if ended.shown.decision.verdict == "deploy":
        for word, line in zip(
            ("next", "then"), _next(ended.settings, folder, overrides, applied=applied), strict=False
        ):
            say(f"{word}: {line}")


def _file(folder: Path) -> str:
    return shlex.quote(str(folder / "journeyman.toml"))


def _next(found: Settings, folder: Path, overrides: list[str], *, applied: bool) -> list[str]:
    """The commands that export the run: its settings, found or given with --set, must be in the file or be given."""
    where = ["--dir", str(folder)]
    given = [part for one in overrides for part in ("--set", one)]
    kept = [part for one in overrides if one.partition("=")[0].strip() not in found for part in ("--set", one)]
    write = shlex.join(["journeyman", "iterate", *where, "--looks", "0", *given, "--apply"])
    export = shlex.join(["journeyman", "export", *where, *kept])
    return [export] if applied or not found else [write, export]


def _as_json(ended: Ended, *, applied: bool) -> dict[str, object]:
    return {
        "ended": ended.reason.record().model_dump(),
        "verdict": ended.shown.decision.verdict,
        "look": ended.shown.look,
        "settings": ended.settings,
        "applied": applied,
        "left": [{**reason.record().model_dump(), "command": command} for reason, command in ended.left],
    }


def print_iterations(folder: Path, *, as_json: bool) -> None:
    """Prints what was tried and what the looks showed, in order; raises UsageError if nothing was tried."""
    entries = iterations(folder)
    if as_json:
        say_json([one.model_dump(mode="json") for one in entries])
        return
    columns = [Column("when"), Column("settings", wraps=True), Column("result", wraps=True), Column("why", wraps=True)]
    rows = []
    for one in entries:
        if isinstance(one, Stopped):
            rows.append([one.at, settings_text(one.settings), f"stopped after {one.seconds:,.0f} s", ""])
        elif isinstance(one, Tried):
            because = f"{named(one.role)}: {one.reason.sentence()}"
            rows.append([one.at, settings_text(one.change), told_after(one), because])
        else:
            rows.append([one.at, settings_text(one.settings), told_of_look(one), "better on the validation rows"])
    print_grid(result_console(), "iterations", columns, rows)
