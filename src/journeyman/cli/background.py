"""The output of `--detach`, `status`, `status --watch` and `stop`; their work is done in supervision/background.py."""

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
    """Starts `journeyman ARGUMENTS` in its own session, and returns once it is running.

    Raises:
        UsageError: a journeyman is already running in the folder.
        typer.Exit: the process failed at once; its output is shown, and its exit code becomes this one's.
    """
    made = start_detached(folder, arguments)
    if made.code:
        say_lines(
            made.said or f"journeyman: it ended at once with exit code {made.code}; {made.log} contains nothing",
            err=True,
        )
        raise typer.Exit(made.code if made.code > 0 else 1)
    place = shlex.quote(str(folder))
    say(f"running in the background as process {made.pid}; log: {made.log}")
    say(f"watch: journeyman status --watch --dir {place}   stop: journeyman stop --dir {place}")


def describe(folder: Path) -> list[str]:
    """Lines that say what is running in the folder, or how the last run ended; none if nothing was ever run."""
    seen = look(folder)
    progress = seen.progress
    if progress is None:
        return []
    again = f"resume with: {progress.command}"
    match seen.state:
        case "starting":
            return ["running: just started"]
        case "running":
            return [f"running: process {progress.pid} on {progress.host}", _task(progress)]
        case "dead":
            beat = datetime.fromtimestamp(progress.beat)
            lines = [f"   {line}" for line in last_lines(folder, 5)]
            dead = f"dead: process {progress.pid} was killed or crashed after {beat:%Y-%m-%d %H:%M:%S}; {again}"
            return [dead, _task(progress), "end of its log:", *lines]
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
    """Shows progress until the run ends. Ctrl-C ends only the watching."""
    try:
        _watch(folder)
    except KeyboardInterrupt:
        say("stopped watching; the run continues")


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
    """Asks the running process to save its state and exit, and waits for it.

    Raises:
        UsageError: nothing is running, or the process is on another machine or belongs to another user.
    """
    pid = ask_to_stop(folder)
    say(f"asked process {pid} to save its state and exit")
    wait_for_end(folder, pid)
    progress = read_progress(folder)
    again = progress.command if progress else f"journeyman run --dir {shlex.quote(str(folder))}"
    say(f"stopped. Resume with: {again}")
