"""journeyman.log in the run's folder: every message of a run, with its time."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from journeyman.events import Event, RunEnded, Said, Warned
from journeyman.foreign import plain

LOG = "journeyman.log"


class LogFile:
    """A listener that writes the log. A process that did not get the folder's lock says nothing, so it never writes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self._began = False

    def __call__(self, event: Event) -> None:
        match event:
            case Said(text):
                self._write(text)
            case Warned(reason):
                self._write(f"   warning: {reason.sentence()}")
            case RunEnded(words=words):
                if words and self._began:
                    self._write(words)
            case _:
                self._began = True

    def _write(self, text: str) -> None:
        self._began = True
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {plain(text)}\n")
        except OSError:
            pass  # the work itself reports a full disk


def last_lines(folder: Path, count: int) -> list[str]:
    """The last lines of the log."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            return file.read().decode("utf-8", errors="replace").removesuffix("\n").split("\n")[-count:]
    except OSError:
        return []
