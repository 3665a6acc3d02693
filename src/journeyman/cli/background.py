"""A run without a terminal: `--detach` starts one, `status` and `status --watch` look at it, `stop` ends it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import typer
from rich.live import Live
from rich.text import Text

from journeyman.cli.heartbeat import LOG, Progress, last_lines, read_progress
from journeyman.cli.say import result_console, say, say_lines
from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.locking import is_at_work, worker_in

_LOOK_S, _WATCH_S = 0.1, 2.0
_SETTLE_S = 1.5
"""Most mistakes in a toml or a log show within this time, and are told where the person still looks."""


def detach(folder: Path, arguments: Sequence[str]) -> None:
    """Starts `journeyman ARGUMENTS` in a session of its own, and returns once it is at work.

    Raises:
        UsageError: a journeyman is at work in the folder already.
        typer.Exit: the process ended at once with an error; what it said is shown, and its exit code is this one's.
    """
    if is_at_work(folder):
        stop_it = f"journeyman stop --dir {shlex.quote(str(folder))}"
        raise UsageError(f"{folder}: another journeyman is at work in this folder", stop_it)
    log = folder / LOG
    with log.open("ab") as file:
        start = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "journeyman", *arguments],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    settled = None
    while child.poll() is None and (settled is None or time.monotonic() < settled):
        progress = read_progress(folder)
        if settled is None and progress is not None and progress.pid == child.pid:
            settled = time.monotonic() + _SETTLE_S
        time.sleep(_LOOK_S)
    if child.returncode:
        with log.open("rb") as file:
            file.seek(start)
            said = file.read().decode("utf-8", errors="replace").strip()
        say_lines(said or f"journeyman: it ended at once, with {child.returncode}; {log} says nothing", err=True)
        raise typer.Exit(child.returncode if child.returncode > 0 else 1)
    place = shlex.quote(str(folder))
    say(f"at work without this terminal, as process {child.pid}; log: {log}")
    say(f"look: journeyman status --watch --dir {place}   stop: journeyman stop --dir {place}")


def describe(folder: Path) -> list[str]:
    """What is at work in the folder, or how the last run ended; no lines where nothing was ever run."""
    progress = read_progress(folder)
    if progress is None:
        return []
    again = f"it goes on with: {progress.command}"
    if is_at_work(folder):
        if progress.state != "running":
            return ["at work: just started"]
        return [f"at work: process {progress.pid} on {progress.host}", _task(progress)]
    match progress.state:
        case "running":
            seen = datetime.fromtimestamp(progress.beat)
            words = [f"   {line}" for line in last_lines(folder, 5)]
            dead = f"dead: process {progress.pid} was killed or crashed after {seen:%Y-%m-%d %H:%M:%S}, {again}"
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
    place = shlex.quote(str(folder))
    if not is_at_work(folder):
        raise UsageError(f"{folder}: no journeyman is at work here", f"Look: journeyman status --dir {place}")
    worker = worker_in(folder)
    if worker is None:
        raise UsageError(f"{folder}: locked, but it is not told by whom", "Try again in a moment")
    host, pid = worker
    if host != socket.gethostname():
        raise UsageError(f"{folder}: the work is done on {host}", "Stop it there")
    _terminate(pid, folder)
    say(f"asked process {pid} to save its state and end")
    while worker_in(folder) == worker:
        time.sleep(_LOOK_S)
    progress = read_progress(folder)
    say(f"stopped. It goes on with: {progress.command if progress else f'journeyman run --dir {place}'}")


def _terminate(pid: int, folder: Path) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended by itself just now
    except PermissionError as error:
        raise UsageError(
            f"{folder}: process {pid} belongs to another user", f"Stop it as that user: kill {pid}"
        ) from error
