"""Finds a recorded row by its number, without an index of gigabytes.

Each row begins with its number and the highest number at that time, which only grows. So the first line of each file
says in which files a row can be: those from the last one that began before the number was given.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from journeyman.errors import InputError
from journeyman.gateway.row_files import numbers_of
from journeyman.ui.files import State, opened, state_of, state_of_open
from journeyman.ui.traffic.places import is_there
from journeyman.zst import ZstdFile

MOST_SEARCHED = 512 << 20
"""So many bytes of rows, uncompressed, are searched for one."""
MOST_ROW = 8 << 20
_NAME = re.compile(r"rows-(\d{6,12})-\d{4}-\d\d-\d\d\.jsonl(\.zst)?")
_PIECE = 1 << 16
_LAST = 1 << 62
_MOST_FILES = 20_000


class Damaged(InputError):
    """A compressed file of rows is damaged."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        line: the row; None: it was not found, or is too long.
        why: why it is None.
        searched: bytes.
    """

    line: bytes | None
    why: str = ""
    searched: int = 0


class RowFinder:
    """The rows of one folder of a recorder."""

    def __init__(self, root: Path, folder: str) -> None:
        self._root, self._folder = root, folder
        self._begins: dict[str, tuple[State, int]] = {}

    def files(self) -> list[str]:
        """Names of the files, in the order in which they were begun; of a file and its compressed copy, the copy."""
        if not is_there(self._root, self._folder):
            return []
        found: dict[int, str] = {}
        with os.scandir(self._root / self._folder) as entries:
            for name in sorted(one.name for one in entries):
                if named := _NAME.fullmatch(name):
                    found[int(named[1])] = name
                    if len(found) > _MOST_FILES:
                        raise InputError(f"{self._root / self._folder}: more than {_MOST_FILES} files", "Move old ones")
        return [found[number] for number in sorted(found)]

    def find(self, seq: int, most: int = MOST_SEARCHED) -> Found:
        """The row of an exchange.

        Raises:
            ChangedArtifact, InputError: as files.opened.
        """
        for tried in range(3):
            try:
                return self._find(seq, most)
            except InputError as error:  # a file was compressed since it was listed
                if tried == 2 or not isinstance(error.__cause__, FileNotFoundError):
                    raise
        raise AssertionError

    def _find(self, seq: int, most: int) -> Found:
        files = self.files()
        if not files:
            return Found(None, "nothing is recorded there")
        searched, damaged = 0, ""
        for name in files[self._last_before(files, seq) :]:
            try:
                for line, size in self._lines(name):
                    searched += size
                    numbers = numbers_of(line[:200])
                    if numbers is not None and numbers[0] == seq:
                        if size > len(line):
                            return Found(None, f"its row is longer than {MOST_ROW >> 20} MiB", searched)
                        return Found(line, "", searched)
                    if searched > most:
                        return Found(None, f"it is not in the {most >> 20} MiB of rows that were searched", searched)
            except Damaged as error:
                damaged = f"; {error.what}"
        return Found(None, f"no row has its number any more{damaged}", searched)

    def _last_before(self, files: list[str], seq: int) -> int:
        """The place of the last file that began when the number was not given yet: by bisection, as numbers grow."""
        low, high = 0, len(files)
        while high - low > 1:
            middle = (low + high) // 2
            if self._begin(files[middle]) < seq:
                low = middle
            else:
                high = middle
        return low

    def _begin(self, name: str) -> int:
        """The highest number when a file was begun; of a file without a readable row, as if it began last."""
        state = state_of(self._root / self._folder / name)
        known = self._begins.get(name)
        if state is not None and known is not None and known[0][0] == state[0]:
            return known[1]
        try:
            line, _ = next(iter(self._lines(name)), (b"", 0))
        except Damaged:
            return _LAST
        numbers = numbers_of(line[:200])
        if numbers is None or state is None:
            return _LAST
        self._begins[name] = state, numbers[1]
        return numbers[1]

    def _lines(self, name: str) -> Iterator[tuple[bytes, int]]:
        """Complete lines, of which the beginning up to MOST_ROW, and their lengths."""
        with self._stream(name) as stream:
            try:
                while line := stream.readline(MOST_ROW):
                    size, last = len(line), line
                    while not last.endswith(b"\n"):
                        last = stream.readline(MOST_ROW)
                        if not last:
                            return  # it is still being written
                        size += len(last)
                    yield line, size
            except (EOFError, zstandard.ZstdError) as error:
                path = self._root / self._folder / name
                raise Damaged(f"{path}: damaged: {error}", "journeyman record --check") from error

    @contextmanager
    def _stream(self, name: str) -> Iterator[IO[Any]]:
        with opened(self._root, self._folder, name) as raw:
            packed = name.endswith(".zst")
            yield io.BufferedReader(ZstdFile(raw), 1 << 17) if packed else raw

    def newest(self, most: int) -> tuple[list[bytes], bool, list[str]]:
        """The newest rows, of about `most` bytes, oldest first; whether that is all; and files that are damaged."""
        lines: list[bytes] = []
        left, damaged = most, list[str]()
        for name in reversed(self.files()):
            try:
                with opened(self._root, self._folder, name) as raw:
                    state = state_of_open(raw)
                    packed = name.endswith(".zst")
                    skip = 0 if packed else max(0, state[1] - left)
                    raw.seek(skip)
                    stream: IO[Any] = io.BufferedReader(ZstdFile(raw), 1 << 17) if packed else raw
                    data = _end_of(stream, left)
            except (EOFError, zstandard.ZstdError):
                damaged.append(name)
                continue
            whole = data.splitlines(keepends=True)
            cut = bool(skip) or len(data) >= left
            if cut:
                whole = whole[1:]
            lines = [line for line in whole if line.endswith(b"\n")] + lines
            left -= len(data)
            if left <= 0 or cut:
                return lines, False, damaged
        return lines, True, damaged


def _end_of(stream: IO[Any], most: int) -> bytes:
    """The last `most` bytes of a stream, of which a bounded part is read."""
    kept: list[bytes] = []
    size = passed = 0
    while passed < MOST_SEARCHED and (data := stream.read(_PIECE)):
        passed += len(data)
        kept.append(data)
        size += len(data)
        while size - len(kept[0]) >= most:
            size -= len(kept.pop(0))
    return b"".join(kept)
