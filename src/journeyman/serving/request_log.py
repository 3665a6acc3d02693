"""The log of requests: one line of JSON for each, in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from journeyman.errors import UsageError

_AGAIN_AFTER = 1000


class RequestLog:
    """Appends lines to a file. A full disk loses lines, which is said, but no answer.

    Args:
        told: called with a line of text if the file cannot be written.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path, told: Callable[[str], None]) -> None:
        self._path, self._told, self.lost = path, told, 0
        try:
            self._file: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"serve.log: {path}: {error.strerror}", "Name another file") from error

    def __call__(self, fields: Mapping[str, Any]) -> None:
        line = json.dumps(fields).encode() + b"\n"
        try:
            complete = self._file.write(line) == len(line)
        except OSError as error:
            complete = False
            why = error.strerror
        else:
            why = "the disk is full"
        if not complete:
            self.lost += 1
            if self.lost % _AGAIN_AFTER == 1:
                self._told(f"{self._path}: {why}; {self.lost} lines of the log are lost")

    def close(self) -> None:
        self._file.close()
