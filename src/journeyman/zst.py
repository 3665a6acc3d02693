"""Reads Zstandard streams and detects truncation within a frame.

zstandard's own stream reader treats that as the end of the data, which would lose rows silently.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import zstandard

_PIECE = 1 << 10
"""Compressed bytes decoded at a time. It bounds the memory: a kilobyte of the densest blocks expands to 32 MiB."""

_LONGEST_HEADER, _BLOCK_HEADER, _CHECKSUM = 18, 3, 4
_CUT = "the stream ends within a frame"


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
                    raise EOFError(_CUT)
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


def read_frame(file: BinaryIO, most: int) -> bytes | None:
    """The next frame, still compressed (RFC 8878, section 3.1.1); the file is then behind it.

    Args:
        file: at the beginning of a frame, or at its end. It can seek.
        most: bytes of content.

    Returns:
        None at the end of the file, or if the frame has more content or does not say how much; the file stays there.

    Raises:
        EOFError: the file ends within the frame.
        zstandard.ZstdError: no frame begins here.
    """
    start = file.tell()
    head = file.read(_LONGEST_HEADER)
    file.seek(start)
    if not head:
        return None
    about = zstandard.get_frame_parameters(head)
    if about.content_size > most:  # also if it is unknown
        return None
    size, last = zstandard.frame_header_size(head), False
    while not last:
        file.seek(start + size)
        header = file.read(_BLOCK_HEADER)
        if len(header) < _BLOCK_HEADER:
            raise EOFError(_CUT)
        block = int.from_bytes(header, "little")
        last, repeated = bool(block & 1), block >> 1 & 3 == 1
        size += _BLOCK_HEADER + (1 if repeated else block >> 3)
    size += _CHECKSUM if about.has_checksum else 0
    file.seek(start)
    frame = file.read(size)
    if len(frame) < size:
        raise EOFError(_CUT)
    return frame
