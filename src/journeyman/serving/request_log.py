"""The log of requests: one line of JSON for each, in a file or on standard output."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from journeyman.errors import UsageError
from journeyman.foreign import json_text

_AGAIN_AFTER = 1000
_STDOUT = 1


class RequestLog:
    """Appends lines to a file. A full disk or a reader that has gone loses lines, which is said, but no answer.

    Args:
        path: of the file; None: standard output, whose reader must keep up.
        told: called with a line of text if the file cannot be written.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, told: Callable[[str], None]) -> None:
        self._name, self._told, self.lost = path or "standard output", told, 0
        try:
            self._file: IO[bytes] = path.open("ab", 0) if path else os.fdopen(os.dup(_STDOUT), "wb", 0)
        except OSError as error:
            raise UsageError(f"serve.log: {self._name}: {error.strerror}", "Name another file") from error

    def __call__(self, fields: Mapping[str, Any]) -> None:
        line = json_text(fields, indent=None).encode() + b"\n"
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
                self._told(f"{self._name}: {why}; {self.lost} lines of the log are lost")

    def close(self) -> None:
        self._file.close()
