"""Starts a run in the background, looks at it, and asks it to stop. Nothing here prints."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from journeyman.errors import UsageError
from journeyman.locking import is_at_work, worker_in
from journeyman.supervision.heartbeat import Progress, read_progress
from journeyman.supervision.log import LOG

_LOOK_S = 0.1
_SETTLE_S = 1.5
"""Most errors in a config file or a log appear within this time, while the user is still looking at the terminal."""


@dataclass(frozen=True)
class Detached:
    """A run that was started in a background process.

    Attributes:
        code: its exit code if it has already ended, otherwise None.
        said: its output if it ended with an error.
    """

    pid: int
    log: Path
    code: int | None
    said: str


@dataclass(frozen=True)
class Look:
    """What is running in a folder, or how the last run there ended.

    Attributes:
        state: `starting` and `running` while a process holds the folder's lock; `dead` if it was killed or crashed.
        progress: what it last reported; None if it has not reported anything yet, or nothing was ever run.
    """

    state: Literal["nothing", "starting", "running", "dead", "ended", "stopped", "failed"]
    progress: Progress | None

    @property
    def at_work(self) -> bool:
        return self.state in ("starting", "running")


def look(folder: Path) -> Look:
    """The current state of the folder."""
    progress = read_progress(folder)
    busy = is_at_work(folder)
    if progress is None:
        return Look("starting" if busy else "nothing", None)
    if busy:
        return Look("running" if progress.state == "running" else "starting", progress)
    return Look("dead" if progress.state == "running" else progress.state, progress)


def start_detached(folder: Path, arguments: Sequence[str]) -> Detached:
    """Starts `journeyman ARGUMENTS` in its own session, and returns once it is running or has ended.

    Raises:
        UsageError: a journeyman is already running in the folder.
    """
    if is_at_work(folder):
        stop_it = f"Stop it: journeyman stop --dir {shlex.quote(str(folder))}"
        raise UsageError(f"{folder}: another journeyman is running in this folder", stop_it)
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
    said = ""
    if child.returncode:
        with log.open("rb") as file:
            file.seek(start)
            said = file.read().decode("utf-8", errors="replace").strip()
    return Detached(child.pid, log, child.returncode, said)


def ask_to_stop(folder: Path) -> int:
    """Asks the running process to save its state and exit, and returns its id; `wait_for_end` waits for it.

    Raises:
        UsageError: nothing is running, or the process is on another machine or belongs to another user.
    """
    if not is_at_work(folder):
        place = shlex.quote(str(folder))
        raise UsageError(f"{folder}: no journeyman is running here", f"See: journeyman status --dir {place}")
    worker = worker_in(folder)
    if worker is None:
        raise UsageError(f"{folder}: locked, but the lock does not name the process", "Try again in a moment")
    host, pid = worker
    if host != socket.gethostname():
        raise UsageError(f"{folder}: the process runs on {host}", "Stop it there")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended on its own
    except PermissionError as error:
        raise UsageError(
            f"{folder}: process {pid} belongs to another user", f"Stop it as that user: kill {pid}"
        ) from error
    return pid


def wait_for_end(folder: Path, pid: int) -> None:
    """Returns once the local process `pid` no longer holds the folder's lock."""
    while worker_in(folder) == (socket.gethostname(), pid):
        time.sleep(_LOOK_S)
