"""Append-only files of a long stage: a kill loses only the seconds since the last commit, and corrupts nothing.

A commit flushes every file to disk, then records their sizes along with the stage's own state and a hash of that
record. Reopening truncates each file to its recorded size; if the record is damaged, or a file is shorter than
recorded, the stage starts over. What goes into a file named .zst is compressed by `compressed` before, in the process
that made it; each piece is a frame, and concatenated frames are a valid stream (RFC 8878, section 3.1).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import zstandard

from journeyman.artifacts import disk_error, hash_of, read_json, write_json
from journeyman.errors import InputError

_COMMIT_EVERY_S = 5.0


def compressed(data: bytes) -> bytes:
    """A frame, with the size of the data in its header and a checksum; nothing of nothing."""
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data) if data else b""


class AppendLogs:
    """Append-only files in a folder, committed together.

    Attributes:
        state: as the last commit recorded it; None if there was no commit, or one of its files is missing.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """

    def __init__(self, folder: Path, names: Sequence[str], progress: str = ".progress.json") -> None:
        self._progress = folder / progress
        self._paths = {name: folder / name for name in names}
        self.state: Any
        self.state, sizes = self._saved()
        self._files: dict[str, BinaryIO] = {}
        for name, path in self._paths.items():
            try:
                file = self._opened(path, sizes.get(name, 0))
            except OSError as error:
                self._close()
                raise disk_error(error, path) from error
            self._files[name] = file
        self._committed_at = time.monotonic()

    def _saved(self) -> tuple[Any, dict[str, int]]:
        """State and sizes of the last commit; (None, {}) if there was none, or it cannot be resumed from."""
        try:
            saved = read_json(self._progress) if self._progress.is_file() else None
        except InputError:
            return None, {}
        if not isinstance(saved, dict) or saved.keys() != {"state", "sizes", "sha256"}:
            return None, {}
        state, sizes = saved["state"], saved["sizes"]
        if saved["sha256"] != hash_of([state, sizes]):
            return None, {}
        there = {name: path.stat().st_size if path.is_file() else 0 for name, path in self._paths.items()}
        return (state, sizes) if all(there[name] >= sizes.get(name, 0) for name in there) else (None, {})

    @staticmethod
    def _opened(path: Path, size: int) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("r+b" if path.exists() else "w+b")
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        return file

    def write(self, name: str, data: bytes) -> None:
        try:
            self._files[name].write(data)
        except OSError as error:
            raise disk_error(error, self._paths[name]) from error

    @property
    def commit_due(self) -> bool:
        return time.monotonic() - self._committed_at >= _COMMIT_EVERY_S

    def commit(self, state: Any) -> None:
        """Makes everything written so far, and `state`, durable."""
        sizes = {}
        for name, file in self._files.items():
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise disk_error(error, self._paths[name]) from error
            sizes[name] = file.tell()
        recorded = json.loads(json.dumps([state, sizes]))
        write_json(self._progress, {"state": state, "sizes": sizes, "sha256": hash_of(recorded)})
        self.state = state
        self._committed_at = time.monotonic()

    def remove_progress(self) -> None:
        """Removes the record of commits, when the stage is done and the files are final."""
        self._progress.unlink()

    def __enter__(self) -> AppendLogs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        """Closes the files. A failed flush of uncommitted data must not hide the error that led here."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
