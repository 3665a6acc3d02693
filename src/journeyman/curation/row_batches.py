"""Reads the interactions in batches of about a megabyte, compressed as they are, so that workers unpack them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import zstandard

from journeyman.errors import InputError
from journeyman.zst import ZstdFile, read_frame

BATCH_BYTES = 1 << 20
_MOST_BYTES, _LARGEST_BYTES = 8 << 20, 64 << 20
"""Content of a frame that is sent as it is, and of one that is unpacked here. Older versions wrote a frame in five
seconds, of any size; from a larger one on, the file is read as a stream."""


@dataclass(frozen=True)
class RowBatch:
    """Some rows, as JSON lines.

    Attributes:
        parts: frames, or plain lines; none is empty, and no row is in two of them.
        compressed: whether these are frames.
    """

    parts: list[bytes]
    compressed: bool

    def lines(self) -> list[bytes]:
        """The rows."""
        return [line for part in self._unpacked() for line in part.removesuffix(b"\n").split(b"\n")]

    def count(self) -> int:
        """The number of rows."""
        return sum(part.removesuffix(b"\n").count(b"\n") + 1 for part in self._unpacked())

    def _unpacked(self) -> Iterator[bytes]:
        if not self.compressed:
            yield from self.parts
            return
        unpacker = zstandard.ZstdDecompressor()
        try:
            yield from map(unpacker.decompress, self.parts)
        except zstandard.ZstdError as error:
            raise _damaged("the interactions", error) from error


class RowBatches:
    """The batches of a file, after `skip` rows.

    Attributes:
        read: bytes of the file up to the end of the last batch.
    """

    def __init__(self, path: Path, skip: int) -> None:
        self._path, self._skip, self.read = path, skip, 0

    def __iter__(self) -> Iterator[RowBatch]:
        try:
            with self._path.open("rb") as file:
                yield from self._frames(file)
                yield from self._lines(file)
        except (EOFError, zstandard.ZstdError) as error:
            raise _damaged(str(self._path), error) from error

    def _frames(self, file: BinaryIO) -> Iterator[RowBatch]:
        """Whole frames, up to the first one that is much too large, or from which only some rows are to be skipped."""
        frames: list[bytes] = []
        size, start = 0, file.tell()
        while (frame := read_frame(file, _LARGEST_BYTES)) is not None:
            content = zstandard.frame_content_size(frame)
            if not content:  # older versions wrote one at a commit without rows
                start = file.tell()
                continue
            if self._skip:
                rows = RowBatch([frame], True).count()
                if rows > self._skip:
                    break
                self._skip -= rows
            elif content > _MOST_BYTES:
                if frames:
                    self.read = start
                    yield RowBatch(frames, True)
                    frames, size = [], 0
                for part in _parts(RowBatch([frame], True).lines()):
                    self.read = file.tell()
                    yield RowBatch([part], False)
            else:
                frames.append(frame)
                size += content
            start = file.tell()
            if size >= BATCH_BYTES:
                self.read = start
                yield RowBatch(frames, True)
                frames, size = [], 0
        file.seek(start)
        if frames:
            self.read = start
            yield RowBatch(frames, True)

    def _lines(self, file: BinaryIO) -> Iterator[RowBatch]:
        """The rest of the file."""
        lines = io.BufferedReader(ZstdFile(file), BATCH_BYTES)
        for _ in islice(lines, self._skip):
            pass
        while batch := lines.readlines(BATCH_BYTES):
            self.read = file.tell()
            yield RowBatch([b"".join(batch)], False)


def _parts(lines: list[bytes]) -> Iterator[bytes]:
    """The lines in parts of about the size of a batch."""
    part, size = list[bytes](), 0
    for line in lines:
        part.append(line + b"\n")
        size += len(line)
        if size >= BATCH_BYTES:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def _damaged(what: str, error: Exception) -> InputError:
    return InputError(f"{what}: damaged: {error}", "Changed by hand? journeyman run --redo")
