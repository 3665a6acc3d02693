"""What `--detach`, `status`, `status --watch` and `stop` show; what they do is in supervision/background.py."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import typer
from rich.live import Live
from rich.text import Text

from journeyman.cli.say import result_console, say, say_lines
from journeyman.foreign import plain
from journeyman.locking import is_at_work
from journeyman.supervision.background import ask_to_stop, look, start_detached, wait_for_end
from journeyman.supervision.heartbeat import Progress, read_progress
from journeyman.supervision.log import last_lines

_WATCH_S = 2.0


def detach(folder: Path, arguments: Sequence[str]) -> None:
    """Starts `journeyman ARGUMENTS` in a session of its own, and returns once it is at work.

    Raises:
        UsageError: a journeyman is at work in the folder already.
        typer.Exit: the process ended at once with an error; what it said is shown, and its exit code is this one's.
    """
    made = start_detached(folder, arguments)
    if made.code:
        say_lines(made.said or f"journeyman: it ended at once, with {made.code}; {made.log} says nothing", err=True)
        raise typer.Exit(made.code if made.code > 0 else 1)
    place = shlex.quote(str(folder))
    say(f"at work without this terminal, as process {made.pid}; log: {made.log}")
    say(f"look: journeyman status --watch --dir {place}   stop: journeyman stop --dir {place}")


def describe(folder: Path) -> list[str]:
    """What is at work in the folder, or how the last run ended; no lines where nothing was ever run."""
    seen = look(folder)
    progress = seen.progress
    if progress is None:
        return []
    again = f"it goes on with: {progress.command}"
    match seen.state:
        case "starting":
            return ["at work: just started"]
        case "running":
            return [f"at work: process {progress.pid} on {progress.host}", _task(progress)]
        case "dead":
            beat = datetime.fromtimestamp(progress.beat)
            words = [f"   {line}" for line in last_lines(folder, 5)]
            dead = f"dead: process {progress.pid} was killed or crashed after {beat:%Y-%m-%d %H:%M:%S}, {again}"
            return [dead, _task(progress), "its last words:", *words]
        case "failed":
            return [f"failed: {progress.words}"]
        case "stopped":
            return [f"stopped: {progress.words}; {again}"]
        case _:
            return []


def _task(progress: Progress) -> str:
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    parts = [f"{progress.task}: {progress.done:,.0f} of {progress.total:,.0f} {progress.unit}{share}", progress.note]
    if progress.left_s is not None:
        parts.append(f"about {timedelta(seconds=round(progress.left_s))} left")
    quiet = time.time() - progress.moved
    if quiet > 60:
        parts.append(f"no progress for {timedelta(seconds=round(quiet))}")
    return "   " + ", ".join(part for part in parts if part)


def watch(folder: Path) -> None:
    """Shows what is at work until it ends; then how it ended. Ctrl-C ends the looking, not the work."""
    try:
        _watch(folder)
    except KeyboardInterrupt:
        say("the work goes on")


def _watch(folder: Path) -> None:
    console = result_console()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            while is_at_work(folder):
                live.update(Text("\n".join(map(plain, [*describe(folder), *last_lines(folder, 5)]))))
                time.sleep(_WATCH_S)
            live.update(Text(""))
    else:
        while is_at_work(folder):
            for line in describe(folder):
                say(line)
            time.sleep(_WATCH_S * 5)


def stop(folder: Path) -> None:
    """Asks the process at work to save its state and end, and waits for it.

    Raises:
        UsageError: nothing is at work, or it is on another machine or another user's.
    """
    pid = ask_to_stop(folder)
    say(f"asked process {pid} to save its state and end")
    wait_for_end(folder, pid)
    progress = read_progress(folder)
    again = progress.command if progress else f"journeyman run --dir {shlex.quote(str(folder))}"
    say(f"stopped. It goes on with: {again}")
