"""The files of rows: one that grows, closed by day and size and then compressed; whole lines only."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import zstandard

from journeyman.artifacts import complete_or_absent, disk_error, remove_leftovers, remove_quietly, sync
from journeyman.errors import DiskError
from journeyman.sources.fields import mapping
from journeyman.zst import ZstdFile

_NAME = re.compile(r"rows-(\d{6,})-\d{4}-\d\d-\d\d\.jsonl(\.zst)?")
_NUMBERS = re.compile(rb'\{"recorded": \d+, "seq": (\d+), "assigned": (\d+), "outcome": "([a-z]+)"')
_LEVEL = 6


def numbers_of(line: bytes) -> tuple[int, int, str] | None:
    """The exchange's number, the highest number at that time, and the outcome, which a row begins with."""
    found = _NUMBERS.match(line)
    return (int(found[1]), int(found[2]), found[3].decode()) if found else None


def row_files(folder: Path) -> list[Path]:
    """All files of rows, in the order in which they were begun; of one that is being compressed, the complete copy."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if named := _NAME.fullmatch(path.name):
            found[int(named[1])] = path  # .zst sorts after the plain file, and is put in place complete
    return [found[number] for number in sorted(found)]


def lines_of(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, with their line ends.

    Raises:
        EOFError, zstandard.ZstdError: a compressed file is damaged.
    """
    with path.open("rb") as raw:
        stream: IO[Any] = io.BufferedReader(ZstdFile(raw), 1 << 17) if path.suffix == ".zst" else raw
        for line in stream:
            if line.endswith(b"\n"):
                yield line


def lines_now(path: Path) -> Iterator[bytes]:
    """The lines of a file, which may have been compressed since it was listed. Raises as `lines_of` does."""
    try:
        yield from lines_of(path)
    except FileNotFoundError:
        yield from lines_of(path.with_name(path.name + ".zst"))


def row_in(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; empty if there is none, which `record --check` names."""
    try:
        return mapping(json.loads(line))
    except (ValueError, RecursionError):
        return {}


class RowFiles:
    """Appends rows. Only the process that holds the folder's lock may.

    Attributes:
        assigned: the highest number that the rows name.
        last: the numbers in the last file, which are the only ones that may also be in the journal.

    Raises:
        DiskError: the folder cannot be read or written.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes
        self._file: IO[bytes] | None = None
        self._path, self._day, self._size, self._dirty = folder, "", 0, False
        self.assigned, self.last = 0, set[int]()
        try:
            self._recover()
        except OSError as error:
            raise disk_error(error, folder) from error

    def _recover(self) -> None:
        remove_leftovers(self._folder, below=False)
        files = row_files(self._folder)
        for path in files:
            if path.suffix == ".zst":
                remove_quietly(path.with_suffix(""))
        self._number = int(_NAME.fullmatch(files[-1].name)[1]) if files else 0  # type: ignore[index]
        for path in reversed(files):
            self._whole_lines(path)
            damaged = False
            try:
                for line in lines_of(path):
                    if named := numbers_of(line):
                        self.last.add(named[0])
                        self.assigned = max(self.assigned, *named[:2])
            except (EOFError, zstandard.ZstdError):
                damaged = True  # --check names it; numbers go on after those of the file before
            if self.last and not damaged:
                break
        for path in files:
            if path.suffix != ".zst":
                with suppress(DiskError):  # it is compressed another time
                    compress(path)

    @staticmethod
    def _whole_lines(path: Path) -> None:
        """Removes the beginning of a line that a killed process had not finished; the journal has the exchange."""
        if path.suffix == ".zst":
            return
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end and (start := max(0, end - (1 << 16))) is not None:
                file.seek(start)
                at = file.read(end - start).rfind(b"\n")
                if at >= 0 or not start:
                    file.truncate(start + at + 1)
                    return
                end = start

    def append(self, line: bytes) -> None:
        """Writes a whole line, or nothing.

        Raises:
            DiskError: the disk is full, or the file cannot be written.
        """
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        if self._file is not None and (day != self._day or self._size + len(line) > self._most):
            self.rotate()
        try:
            if self._file is None:
                self._number += 1
                self._path, self._day, self._size = self._folder / f"rows-{self._number:06d}-{day}.jsonl", day, 0
                self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0)
            self._write(line)
        except OSError as error:
            raise disk_error(error, self._path) from error

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(line)
        self._dirty = True

    def sync(self) -> None:
        """Waits until all rows are on disk.

        Raises:
            DiskError: the disk failed.
        """
        if self._file is not None and self._dirty:
            try:
                os.fdatasync(self._file.fileno())
            except OSError as error:
                raise disk_error(error, self._path) from error
            self._dirty = False

    def rotate(self) -> None:
        """Closes the file and compresses it. On a full disk that is done at the next start."""
        self.close()
        with suppress(DiskError):
            compress(self._path)

    def close(self) -> None:
        if self._file is not None:
            with suppress(DiskError):
                self.sync()
            self._file.close()
            self._file = None


def compress(path: Path) -> None:
    """Replaces a file of rows by a compressed one.

    Raises:
        DiskError: there is no space for it.
    """
    packed = path.with_name(path.name + ".zst")
    with complete_or_absent(packed) as staged, path.open("rb") as rows, staged.open("wb") as out:
        staged.chmod(0o600)
        with zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(out, closefd=False) as packer:
            shutil.copyfileobj(rows, packer, 1 << 20)
    with suppress(OSError):
        sync(path.parent)
    remove_quietly(path)
