"""Follows the recorder's rows, while they are written and after their files were compressed."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from journeyman.gateway.row_files import row_files
from journeyman.zst import ZstdFile

_NUMBER = re.compile(r"rows-(\d+)-")
_STEP = 1 << 20
_TRIES = 3


@dataclass
class Cursor:
    """A place in the rows.

    Attributes:
        file: the number of a file.
        offset: how many of its bytes were read, before compression.
        head: a hash of its first line: another file of this number is another ledger's.
    """

    file: int = 0
    offset: int = 0
    head: str = ""


class RowFollower:
    """Reads what has been added since the last time.

    Args:
        cursor: where to go on; it is moved.

    Attributes:
        unreadable: damaged files, and why; what follows in them is left out.
    """

    def __init__(self, folder: Path, cursor: Cursor) -> None:
        self._folder, self.cursor = folder, cursor
        self.unreadable: dict[str, str] = {}

    def is_other(self) -> bool:
        """Whether the files are not those that the cursor was moved in: the folder was moved away or replaced."""
        cursor, files = self.cursor, self._files()
        if not cursor.file:
            return False
        if cursor.file not in files:
            return max(files, default=0) < cursor.file - 1
        return bool(cursor.head) and _head(files[cursor.file]) != cursor.head

    def lines(self, most: int) -> Iterator[bytes]:
        """At most so many complete lines, with their line ends. A damaged file is named in `unreadable`, and left."""
        count = tries = 0
        while tries < _TRIES:
            try:
                for line in self._lines():
                    yield line
                    count += 1
                    if count >= most:
                        return
                return
            except FileNotFoundError:  # it was compressed since it was listed
                tries += 1

    def _lines(self) -> Iterator[bytes]:
        files = self._files()
        for number in sorted(number for number in files if number >= self.cursor.file):
            if number > self.cursor.file:
                self.cursor = _moved(self.cursor, number)
            path = files[number]
            try:
                for line in _after(path, self.cursor.offset):
                    if not self.cursor.offset:
                        self.cursor.head = _hash(line)
                    self.cursor.offset += len(line)
                    yield line
            except (EOFError, zstandard.ZstdError) as error:
                self.unreadable[path.name] = str(error)
            if path.suffix == ".zst":  # nothing is added to it, so it need not be unpacked again
                self.cursor = _moved(self.cursor, number + 1)

    def _files(self) -> dict[int, Path]:
        return {_number(path): path for path in row_files(self._folder)}


def _moved(cursor: Cursor, number: int) -> Cursor:
    """The same object, at the beginning of another file."""
    cursor.file, cursor.offset, cursor.head = number, 0, ""
    return cursor


def _number(path: Path) -> int:
    found = _NUMBER.match(path.name)
    return int(found[1]) if found else 0


def _head(path: Path) -> str:
    try:
        return _hash(next(_after(path, 0), b""))
    except (OSError, EOFError, zstandard.ZstdError):
        return ""


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


def _after(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as raw:
        stream: IO[Any] = raw
        if path.suffix == ".zst":
            stream = io.BufferedReader(ZstdFile(raw), 1 << 17)
            while offset and (skipped := len(stream.read(min(offset, _STEP)))):
                offset -= skipped
        else:
            raw.seek(offset)
        for line in stream:
            if line.endswith(b"\n"):
                yield line
