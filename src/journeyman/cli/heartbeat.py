"""What a run tells other terminals: .progress.json, written every two seconds, and journeyman.log.

The file outlives the process. Whether somebody is at work tells the folder's lock, which the system lets go when
the process dies, however it died: a file that says "running" in a folder without a lock is a dead run's.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel

from journeyman.artifacts import read_model, write_model
from journeyman.errors import DiskError, InputError
from journeyman.foreign import plain

PROGRESS, LOG = ".progress.json", "journeyman.log"
_BEAT_S = 2.0


class Progress(BaseModel):
    """What the process at work does now, or what it did last. Times are seconds since 1970."""

    pid: int
    process_started: float
    host: str
    command: str
    state: Literal["running", "ended", "stopped", "failed"] = "running"
    words: str = ""
    task: str = ""
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    note: str = ""
    begun: float = 0.0
    begun_done: float | None = None
    moved: float = 0.0
    beat: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the task is done, at its own pace so far; None where that cannot be told yet."""
        gained, took = self.done - (self.begun_done or 0.0), self.moved - self.begun
        return (self.total - self.done) * took / gained if gained > 0 and took > 0 else None


class Heartbeat:
    """Writes both files from the first sign of work on; a process that was refused the folder never writes."""

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        me = psutil.Process()
        self.progress = Progress(
            pid=me.pid, process_started=me.create_time(), host=socket.gethostname(), command=command
        )
        self.stderr_is_log = _is_same_file(folder / LOG)

    def begin(self, task: str, total: float, unit: str) -> None:
        self._start()
        now = time.time()
        fresh = {"task": task, "total": total, "unit": unit, "begun": now, "moved": now, "done": 0.0, "note": ""}
        self.progress = self.progress.model_copy(update={**fresh, "begun_done": None})

    def advance(self, done: float, note: str) -> None:
        self.progress.done, self.progress.note, self.progress.moved = done, note, time.time()
        if self.progress.begun_done is None:  # what an earlier run had done already
            self.progress.begun_done = done

    def say(self, text: str) -> None:
        self._start()
        self.progress.words = text
        try:
            with (self._folder / LOG).open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {plain(text)}\n")
        except OSError:
            pass  # a full disk is told by the work itself

    def end(self, state: Literal["ended", "stopped", "failed"], words: str = "") -> None:
        """The last beat."""
        if self._thread is None:
            return
        if words:
            self.say(words)
        self._over.set()
        self._thread.join()
        self.progress.state = state
        self._write()

    def _start(self) -> None:
        if self._thread is None:
            self._write()
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(_BEAT_S):
            self._write()

    def _write(self) -> None:
        self.progress.beat = time.time()
        try:
            write_model(self._folder / PROGRESS, self.progress)
        except (OSError, DiskError):
            pass


def read_progress(folder: Path) -> Progress | None:
    """What stands in the folder; None where nothing was ever run there, or the file is damaged."""
    try:
        return read_model(folder / PROGRESS, Progress)
    except InputError:
        return None


def last_lines(folder: Path, count: int) -> list[str]:
    """The end of the log."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            return file.read().decode("utf-8", errors="replace").removesuffix("\n").split("\n")[-count:]
    except OSError:
        return []


def _is_same_file(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or none
        return False
