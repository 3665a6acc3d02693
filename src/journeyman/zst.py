"""Reads Zstandard streams and detects truncation within a frame.

zstandard's own stream reader treats that as the end of the data, which would lose rows silently.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import zstandard

_PIECE = 1 << 10
"""Compressed bytes decoded at a time. It bounds the memory: a kilobyte of the densest blocks expands to 32 MiB."""


class ZstdFile(io.RawIOBase):
    """The concatenated content of all frames of a stream.

    Raises:
        EOFError: the stream ends within a frame.
        zstandard.ZstdError: it is damaged, or not a Zstandard stream.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._frame_begun = False
        self._left = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = self._left or self._raw.read(_PIECE)
            self._left = b""
            if not piece:
                if self._frame_begun:
                    raise EOFError("the stream ends within a frame")
                return 0
            self._ready = memoryview(self._decoded(piece))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decoded(self, piece: bytes) -> bytes:
        made = self._frame.decompress(piece)
        self._frame_begun = not self._frame.eof
        if self._frame.eof:
            self._left = self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return made
