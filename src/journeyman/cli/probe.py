"""`journeyman plan --probe` and `journeyman show probe`: a skin over api/probing.py."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from journeyman.api.probing import (
    BUDGET_S,
    compared_with_evaluation,
    differs_from_evaluation,
    last_probe,
    probe_run,
)
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.running import Invocation, print_results, run_stages
from journeyman.cli.say import result_console, say, say_json, say_on
from journeyman.config import CONFIG_NAME, load_config
from journeyman.durations import seconds_of
from journeyman.errors import Interrupted, UsageError
from journeyman.foreign import named, plain
from journeyman.probing.measuring import FOLDER, PAGE
from journeyman.probing.page import sections_of
from journeyman.probing.record import ProbeRecord
from journeyman.runs import Run


def plan_and_probe(
    folder: Path, settings: Sequence[str], budget: str | None, *, redo: bool = False, as_json: bool = False
) -> None:
    """Plans, prints the plan's page, probes and prints the probe's page; with `as_json`, only the probe's record.

    Args:
        budget: such as 90s, 10m or 1h; None: ten minutes.

    Raises:
        JourneymanError: as planning and probe_run do.
    """
    seconds = budget_of(budget)
    planned = Invocation(folder, "plan", settings)
    run_stages(planned, redo=redo)
    if not as_json:
        print_results(planned)
    run = Run(folder, load_config(folder / CONFIG_NAME, list(settings)))
    parts = [part for one in settings for part in ("--set", one)]
    given = [] if budget is None else ["--probe-budget", budget]
    again = shlex.join(["journeyman", "plan", "--probe", "--dir", str(folder), *parts, *given])
    with terminal_reporter(folder, again) as reporter:
        try:
            record = probe_run(run, reporter, seconds)
        except Interrupted as stop:
            raise Interrupted(stop.what, f"Answers and adapters so far are kept. It resumes with: {again}") from stop
    _print(folder, record, as_json=as_json)


def budget_of(text: str | None) -> float:
    """The budget in seconds; raises UsageError if it is not a time."""
    return BUDGET_S if text is None else seconds_of(text, "--probe-budget")


def show_probe(folder: Path, *, as_json: bool) -> None:
    """Prints the last probe.

    Raises:
        UsageError: there is none.
    """
    found = last_probe(Run(folder, load_config(folder / CONFIG_NAME)))
    if found is None:
        raise UsageError(f"{folder}: no probe", f"Run: journeyman plan --probe --dir {shlex.quote(str(folder))}")
    record, fresh = found
    if not fresh:
        say("note: data, settings or the engine have changed since this probe was made", err=True)
    _print(folder, record, as_json=as_json)


def _print(folder: Path, record: ProbeRecord, *, as_json: bool) -> None:
    if as_json:
        say_json(record.model_dump(mode="json"))
        return
    console = result_console()
    for section in sections_of(record):
        say_on(console, "")
        say_on(console, section.title.upper())
        for line in ([section.about] if section.about else []) + list(section.lines):
            say_on(console, f"  {line}")
    say_on(console, "")
    differs = differs_from_evaluation(folder, record)
    if differs:
        names = ", ".join(plain(one, 200) for one in differs)
        say_on(console, f"not compared with the run's evaluation, which was made from other inputs: {names}")
    for role, one in compared_with_evaluation(folder, record).items():
        verdict = "consistent" if one.consistent else "not consistent"
        say_on(
            console,
            f"{named(role)}: predicted {one.predicted.low:.0%} to {one.predicted.high:.0%}, found by the evaluation "
            f"{one.found.passed} of {one.found.n} ({one.found.low:.0%} to {one.found.high:.0%}): {verdict}",
        )
    say_on(console, f"this page: {folder / FOLDER / PAGE}")
