"""`journeyman monitor`: a skin over api/monitoring.py."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

import typer

from journeyman.api.monitoring import Monitor
from journeyman.cli.monitor_tables import print_report
from journeyman.cli.say import result_console, say, say_json
from journeyman.config import MOST_HOURS
from journeyman.errors import JourneymanError, UsageError
from journeyman.foreign import plain
from journeyman.monitoring.alerts import Alerts

_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([mhd])")
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


def hours_of(span: str) -> float:
    """A span of time such as 90m, 24h or 7d, in hours.

    Raises:
        UsageError: it is none, or longer than MOST_HOURS.
    """
    found = _SPAN.fullmatch(span.strip())
    hours = float(found[1]) * _HOURS[found[2]] if found else 0.0
    if not 0 < hours <= MOST_HOURS:
        most = f"of at most {MOST_HOURS / 24:.0f}d"
        raise UsageError(f"--since {plain(span, 40)!r}: not a span of time {most}", "Such as 90m, 24h or 7d")
    return hours


def run(
    folder: Path, since: str | None, role: str | None, *, as_json: bool, watching: bool, alert: bool
) -> None:  # fmt: skip
    """Prints one look, or one after the other until it is stopped; with `alert`, sends alerts instead.

    Raises:
        JourneymanError: as Monitor does.
    """
    if alert and (role is not None or since is not None):
        raise UsageError(
            "--alert is for all roles and for monitor.hours", "Leave --role and --since out, or set monitor.hours"
        )
    monitor = Monitor(folder, None if since is None else hours_of(since), role)
    with ExitStack() as opened:
        alerts = opened.enter_context(monitor.alerts(_told)) if alert else None
        if alerts is not None and not (monitor.config.monitor.webhook or monitor.config.monitor.command):
            _told("monitor.webhook and monitor.command are not set: alerts are only printed")
        try:
            while True:
                try:
                    _look(monitor, alerts, as_json=as_json, watching=watching)
                except (JourneymanError, OSError) as error:
                    if not watching:
                        raise
                    _told(f"warning: this look failed: {plain(str(error), 300)}")  # the next one may not
                if not watching:
                    return
                time.sleep(monitor.config.monitor.every_s)
        except KeyboardInterrupt:
            if not watching:
                raise
            say("stopped watching; nothing else has changed", err=True)


def _look(monitor: Monitor, alerts: Alerts | None, *, as_json: bool, watching: bool) -> None:
    now = time.time()
    report = monitor.look(now)
    if alerts is not None:
        alerts.take(report, now)
        if alerts.deliver(now) and not watching:
            raise typer.Exit(1)
    elif as_json:
        say_json(report.model_dump(mode="json"))
    else:
        console = result_console()
        if watching and console.is_terminal:
            console.clear()
        print_report(console, report)


def _told(text: str) -> None:
    say(text, err=True)
