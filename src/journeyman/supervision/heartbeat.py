"""What a run reports to other processes: .progress.json, written every two seconds.

The file outlives the process. Whether a process is running is known by the folder's lock, which the system releases
however the process ends: if the file says "running" but nothing holds the lock, the run is dead.
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel

from journeyman.artifacts import read_model, write_model
from journeyman.errors import DiskError, InputError
from journeyman.events import (
    Advanced,
    Event,
    Expected,
    RunEnded,
    Said,
    StageFinished,
    StageStarted,
    Warned,
    WorkBegan,
)

PROGRESS = ".progress.json"
_BEAT_S = 2.0
_TRUSTED = 0.1


class Progress(BaseModel):
    """What the process is doing, or did last. Times are in seconds since 1970."""

    pid: int
    process_started: float
    host: str
    command: str
    state: Literal["running", "ended", "stopped", "failed"] = "running"
    words: str = ""
    stage: str = ""
    task: str = ""
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    note: str = ""
    begun: float = 0.0
    begun_done: float | None = None
    expected_s: float | None = None
    moved: float = 0.0
    beat: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the task is done; None: not known yet.

        By its pace so far, and at its beginning also by what the plan expected, which counts less and less until a
        tenth of the task is done.
        """
        gained, took = self.done - (self.begun_done or 0.0), self.moved - self.begun
        paced = (self.total - self.done) * took / gained if gained > 0 and took > 0 else None
        if self.expected_s is None or not self.total:
            return paced
        planned = self.expected_s * (1 - self.done / self.total)
        if paced is None:
            return planned
        trust = min(1.0, gained / (_TRUSTED * self.total))
        return trust * paced + (1 - trust) * planned


class Heartbeat:
    """A listener that writes from the first event on; a process that did not get the folder's lock never writes.

    Args:
        command: what the user types to resume.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._expected: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        me = psutil.Process()
        self.progress = Progress(
            pid=me.pid, process_started=me.create_time(), host=socket.gethostname(), command=command
        )

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Advanced | RunEnded):
            self._start()
        match event:
            case StageStarted(stage):
                self.progress.stage = stage
            case StageFinished():
                self.progress.stage = ""
            case Expected(task, seconds):
                self._expected[task] = seconds
            case WorkBegan():
                self._begin(event)
            case Advanced(done, note):
                self._advance(done, note)
            case Said(text):
                self.progress.words = text
            case Warned(reason):
                self.progress.words = reason.sentence()
            case RunEnded():
                self._end(event)

    def _begin(self, work: WorkBegan) -> None:
        now = time.time()
        expected = self._expected.get(work.task)
        fresh = {
            "expected_s": expected,
            "task": work.task,
            "total": work.total,
            "unit": work.unit,
            "done": 0.0,
            "note": "",
        }
        self.progress = self.progress.model_copy(update={**fresh, "begun": now, "moved": now, "begun_done": None})

    def _advance(self, done: float, note: str) -> None:
        self.progress.done, self.progress.note, self.progress.moved = done, note, time.time()
        if self.progress.begun_done is None:  # the part that an earlier run had done
            self.progress.begun_done = done

    def _end(self, end: RunEnded) -> None:
        """Writes the final state."""
        if self._thread is None:
            return
        self.progress.words = end.words or self.progress.words
        self._over.set()
        self._thread.join()
        self.progress.state = end.state
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
    """The progress in the folder; None if nothing was ever run there, or the file is damaged."""
    try:
        return read_model(folder / PROGRESS, Progress)
    except InputError:
        return None
