"""`journeyman record`: a skin over api/recording.py."""

from __future__ import annotations

from pathlib import Path

import typer

from journeyman.api.recording import checked, record_config, recording, rows_folder
from journeyman.cli.say import say, say_json
from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.gateway.checking import named
from journeyman.gateway.learning import groups, proposed


def told(text: str) -> None:
    say(text, err=True)


def record_exchanges(folder: Path, upstream: str | None, port: int | None) -> None:
    """Records until it is stopped by a signal.

    Raises:
        JourneymanError: as `recording` does.
    """
    with recording(folder, upstream, port, told=told) as recorder:
        told(f"recording on {recorder.address} (Ctrl-C stops)")
        recorder.run()


def print_check(folder: Path, *, as_json: bool) -> bool:
    """Prints the count of the ledger; whether every request has its row."""
    found = checked(folder, told)
    if as_json:
        say_json(found.as_json())
        return not found.difference
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.rows.items()))
    say(f"{found.requests} requests, {found.answers} answers, {sum(found.rows.values())} rows ({outcomes or 'none'})")
    if found.open:
        say(f"{len(found.open)} in progress or waiting to be written: {named(found.open)}")
    if found.lost:
        say(f"{found.lost} rows without all of their contents")
    for what, numbers in (("requests without a row", found.missing), ("requests with several rows", found.double)):
        if numbers:
            say(f"{what}: {named(numbers)}")
    for place in found.damaged:
        say(f"changed or damaged: {plain(place)}")
    say(f"difference {found.difference}")
    return not found.difference


def print_rules(folder: Path) -> None:
    """Prints proposed rules as TOML.

    Raises:
        UsageError: nothing was recorded.
    """
    from journeyman.proposing.toml import toml_string

    config = record_config(folder)
    found = groups(rows_folder(folder, config), config.record.roles)
    if not found:
        raise UsageError(f"{rows_folder(folder, config)}: no requests to a model were recorded", "Record some first")
    for rule, group in proposed(found):
        models = ", ".join(plain(name, 40) for name, _ in group.models.most_common(3))
        now = ", ".join(plain(name, 40) for name, _ in group.now.most_common(3))
        say(f"# {group.rows} requests, {len(group.conversations)} conversations, models {models}; now called {now}")
        say("[[record.roles]]")
        say(f"role = {toml_string(rule.role)}")
        say(f"system = {toml_string(rule.system)}")
        say("")
    without = sum(group.rows for group in found if not group.beginning)
    if without:
        say(f"# {without} requests have no system prompt; give them a role by path, header, key or model")


def run(
    folder: Path, upstream: str | None, port: int | None, *, check: bool, learn: bool, as_json: bool
) -> None:  # fmt: skip
    if check:
        if not print_check(folder, as_json=as_json):
            raise typer.Exit(1)
    elif learn:
        print_rules(folder)
    else:
        record_exchanges(folder, upstream, port)
