"""`journeyman record`: a skin over api/recording.py."""

from __future__ import annotations

from pathlib import Path

import typer

from journeyman.api.recording import checked, recording, rows_folder
from journeyman.api.routing import GATHERED, gathered
from journeyman.cli.say import say, say_json
from journeyman.config import config_in
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

    config = config_in(folder)
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


def gathered_source(folder: Path) -> str:
    """Copies what was recorded, says what that was, and returns the setting that trains on it.

    Sources of the config file that match nothing are left out: many have nothing but what was recorded.

    Raises:
        UsageError: nothing was recorded.
        DiskError: the copy cannot be written.
    """
    from journeyman.proposing.toml import toml_string
    from journeyman.sources.files import require_logs

    config = config_in(folder)
    found = gathered(folder, config)
    marked = ", ".join(f"{count} in {mode}" for mode, count in sorted(found.marked.items()))
    told(
        f"{found.rows} recorded rows"
        + (f"; the student failed with {found.marked.total()} ({marked})" if marked else "")
    )
    if found.student:
        told(f"left out: {found.student} rows that the student answered")
    if found.disliked:
        told(f"{found.disliked} rows count as failed, because of their feedback")
    for place in found.unreadable:
        told(f"warning: not read: {plain(place)}")
    others = []
    for one in config.data.sources:
        try:
            require_logs(folder, [one])
        except UsageError as error:
            told(f"left out: {plain(error.what)}")
            continue
        others.append(one)
    names = dict.fromkeys([*others, f"{GATHERED}/"])
    return f"data.sources=[{', '.join(map(toml_string, names))}]"


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
