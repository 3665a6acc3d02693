"""A file of JSON lines that grows, read on from where the last reading ended, a part at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from journeyman.errors import InputError
from journeyman.ui.files import opened, state_of

_REMEMBERED = 256
_LONGEST = 1 << 20
_LOOK_EVERY = 2000


class Growing:
    """Reads lines once.

    A recorder that was killed cuts its file back and goes on, so the end of what was read is compared before more is
    read; if it differs, everything is read again.

    Attributes:
        lines: how many were read.
        damaged: how many of them were no JSON object, or too long.
        seconds: what reading has taken so far.
        generation: counts how often it was begun anew.
    """

    def __init__(
        self, root: Path, name: str, begin: Callable[[], None], take: Callable[[dict[str, Any], int], None]
    ) -> None:
        """`begin` forgets everything; `take` gets each row with its offset."""
        self._root, self._name, self._begin, self._take = root, name, begin, take
        self.lock = threading.Lock()
        self.generation, self._inode = 0, -1
        self._anew()

    def _anew(self) -> None:
        self.lines = self.damaged = self._offset = 0
        self.seconds = 0.0
        self._tail = b""
        self.generation += 1
        self._begin()

    def read(self, most_s: float) -> tuple[int, int]:
        """Reads what was added, for about `most_s` seconds at most; returns how far it is, and the file's size.

        Raises:
            ChangedArtifact, InputError: as files.opened.
        """
        with self.lock:
            if state_of(self._root / self._name) is None and not (self._root / self._name).is_symlink():
                if self._offset:
                    self._anew()
                return 0, 0
            began = time.monotonic()
            with opened(self._root, self._name) as file:
                found = os.fstat(file.fileno())
                file.seek(max(0, self._offset - len(self._tail)))
                if found.st_ino != self._inode or file.read(len(self._tail)) != self._tail:
                    self._anew()
                    self._inode = found.st_ino
                self._go_on(file, began + most_s)
            self.seconds += time.monotonic() - began
            return self._offset, max(self._offset, found.st_size)

    def _go_on(self, file: BinaryIO, until: float) -> None:
        file.seek(self._offset)
        line = b""
        while line := file.readline(_LONGEST):
            start, size = self._offset, len(line)
            while not line.endswith(b"\n"):
                line = file.readline(_LONGEST)
                if not line:
                    return  # it is still being written
                size += len(line)
            self._offset = start + size
            self._tail = line[-_REMEMBERED:]
            self.lines += 1
            self._parse(line if size == len(line) else b"", start)
            if self.lines % _LOOK_EVERY == 0 and time.monotonic() > until:
                return

    def _parse(self, line: bytes, start: int) -> None:
        try:
            row = from_json(line)
            if not isinstance(row, dict):
                raise TypeError("no object")
            self._take(row, start)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
            self.damaged += 1

    def row_at(self, offset: int) -> dict[str, Any]:
        """A row that was read before.

        Raises:
            InputError: the file is another one now.
        """
        with opened(self._root, self._name) as file:
            file.seek(offset)
            try:
                row = from_json(file.readline(_LONGEST))
            except ValueError:
                row = None
            if isinstance(row, dict):
                return row
        raise InputError(f"{self._root / self._name}: another file than before", "Load the page again")
