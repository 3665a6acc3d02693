"""`journeyman search` and `journeyman show search`: a skin over api/searching.py."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.api.searching import SearchResult, last_search, run_search
from journeyman.cli.grid import Column, print_grid
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.say import result_console, say, say_json, say_lines
from journeyman.durations import spelled
from journeyman.errors import Interrupted
from journeyman.foreign import named
from journeyman.search.ledger import Trial
from journeyman.search.state import read_state
from journeyman.search.telling import told_space, wins_and_losses
from journeyman.search.trying import described


@dataclass(frozen=True)
class Flags:
    """The flags of the command."""

    budget: str | None = None
    seed: int | None = None
    apply: bool = False
    as_json: bool = False


def run(folder: Path, settings: list[str], flags: Flags) -> None:
    """Searches, prints what was found, and with --apply writes it into journeyman.toml.

    Raises:
        JourneymanError: as run_search does.
    """
    shown_before = flags.apply and not settings and flags.budget is None and flags.seed is None
    done = _finished(folder) if shown_before else None
    if done is None:
        given = [*settings, *_overrides(flags)]
        line = _line(folder, settings, flags)
        with terminal_reporter(folder, line) as reporter:
            try:
                done = run_search(folder, given, reporter)
            except Interrupted as stop:
                raise Interrupted(stop.what, f"The same command resumes from here: {line}") from stop
    if flags.as_json:
        say_json(as_json(done))
    else:
        print_result(done)
    if flags.apply:
        for key, (old, new) in done.apply().items():
            say(f"{key} = {new} (was {'not set' if old is None else old})", err=flags.as_json)
        say(f"written to journeyman.toml; train with it: journeyman run --redo --dir {folder}", err=flags.as_json)


def show(folder: Path, as_json_too: bool) -> None:
    """Prints the last search; raises UsageError if there was none."""
    found = last_search(folder)
    if as_json_too:
        say_json(as_json(found))
    else:
        print_result(found)


def print_result(found: SearchResult) -> None:
    """The table of trials, what is recommended, and how to take it."""
    console = result_console()
    columns = [
        Column("recipe", wraps=True), Column("rows", right=True), Column("passed", right=True),
        Column("by role", wraps=True), Column("loss", right=True), Column("won : lost", right=True),
        Column("time", right=True),
    ]  # fmt: skip
    rows = [_cells(one, found.trials) for one in found.trials]
    print_grid(console, "trials; won : lost are rows against the default on the same rows", columns, rows)
    for line in [*told_space(found.state), *found.told()]:
        say(line)
    if found.recommended:
        say_lines(found.toml)
        say(f"write this into journeyman.toml: journeyman search --apply --dir {shlex.quote(str(found.folder))}")


def as_json(found: SearchResult) -> dict[str, Any]:
    """For scripts: the state, each trial, and what is recommended."""
    return {
        "search": found.state.model_dump(mode="json"),
        "trials": [
            {**one.model_dump(mode="json"), "versus_default": wins_and_losses(one, found.trials)}
            for one in found.trials
        ],
        "recommended": found.recommended,
        "toml": found.toml,
        "told": found.told(),
    }  # fmt: skip


def _cells(trial: Trial, trials: list[Trial]) -> list[str]:
    moved = wins_and_losses(trial, trials)
    if trial.state != "scored":
        return [described(trial.changes), str(trial.rows), trial.state, trial.why, "", "", spelled(trial.seconds)]
    passed = sum(outcome == "pass" for outcome in trial.outcomes.values())
    return [
        described(trial.changes),
        str(trial.rows),
        f"{passed}/{len(trial.outcomes)}",
        ", ".join(f"{named(role)} {good}/{scored}" for role, (good, scored) in trial.by_role.items()),
        "not known" if trial.loss is None else f"{trial.loss:.4f}",
        "" if moved is None else f"{moved[0]} : {moved[1]}",
        spelled(trial.seconds),
    ]


def _finished(folder: Path) -> SearchResult | None:
    state = read_state(folder)
    return SearchResult(folder, state) if state is not None and state.state == "finished" else None


def _overrides(flags: Flags) -> list[str]:
    from journeyman.proposing.toml import toml_string

    budget = [] if flags.budget is None else [f"search.budget={toml_string(flags.budget)}"]
    return budget + ([] if flags.seed is None else [f"search.seed={flags.seed}"])


def _line(folder: Path, settings: list[str], flags: Flags) -> str:
    parts = ["journeyman", "search", "--dir", str(folder)]
    parts += [part for one in settings for part in ("--set", one)]
    parts += [] if flags.budget is None else ["--budget", flags.budget]
    parts += [] if flags.seed is None else ["--seed", str(flags.seed)]
    return shlex.join([*parts, *["--apply"] * flags.apply])
