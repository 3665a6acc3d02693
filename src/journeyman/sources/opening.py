"""Opens a file as a UTF-8 stream: decompressed according to its first bytes, and recoded from other encodings.

gzip (RFC 1952), zstd (RFC 8878), bzip2 and xz, with any number of members or frames. A stream that ends within one is
an error, never the end of the file.
"""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

CHUNK = 1 << 20
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
DAMAGED = (EOFError, zlib.error, zstandard.ZstdError, lzma.LZMAError)
_PIECE = 4096
"""Bytes passed to a decompressor at a time: in zstd, four bytes can expand to a block of 128 KiB."""
_PACKINGS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"\x28\xb5\x2f\xfd", lambda: zstandard.ZstdDecompressor().decompressobj()),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
)
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def opened(path: Path, encoding: str = "auto") -> Iterator[tuple[io.BufferedReader, IO[bytes]]]:
    """Yields the stream, and the underlying file, whose position shows the progress."""
    with path.open("rb", buffering=CHUNK) as raw:
        yield recoded(decompressed(raw), encoding), raw


def decompressed(raw: Any) -> io.BufferedReader:
    head = raw.peek(8)[:8]
    make = next((make for mark, make in _PACKINGS if head.startswith(mark)), None)
    return raw if make is None else io.BufferedReader(_Unpacked(raw, make), CHUNK)


def recoded(stream: io.BufferedReader, encoding: str) -> io.BufferedReader:
    if encoding != "auto":
        return io.BufferedReader(_Recoded(stream, encoding), CHUNK)
    head = stream.peek(8)[:8]
    for mark, name in _BOMS:
        if head.startswith(mark):
            return io.BufferedReader(_Recoded(stream, name), CHUNK)
    unmarked = _unmarked(head)
    return io.BufferedReader(_Recoded(stream, unmarked), CHUNK) if unmarked else stream


def _unmarked(head: bytes) -> str:
    """Recognizes UTF-16 without a byte order mark: two characters that begin JSON, each with a zero byte."""
    for order, first in (("le", 0), ("be", 1)):
        signs, zeros = head[first:4:2], head[1 - first : 4 : 2]
        if (
            zeros == b"\0\0"
            and signs[:1] in (b"{", b"[")
            and signs[1:] in (b'"', b"{", b"[", b" ", b"\n", b"\r", b"\t")
        ):
            return f"utf-16-{order}"
    return ""


class _Recoded(io.RawIOBase):
    """Recodes to UTF-8; invalid bytes become lone surrogates, and their row is rejected later."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream, self._left = stream, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(
            errors="surrogateescape" if encoding[:3] != "utf" else "strict"
        )

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._left:
            chunk = self._stream.read1(CHUNK // 4)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise EOFError(f"not {error.encoding}: {error.reason}") from error
            self._left = text.encode("utf-8", "surrogateescape")
            if not chunk:
                break
        count = min(len(target), len(self._left))
        target[:count], self._left = self._left[:count], self._left[count:]
        return count


class _Unpacked(io.RawIOBase):
    """Decompresses concatenated members or frames piece by piece.

    What was decompressed before the damage is returned before the error is raised: readers of the standard library
    lose it, and zstandard's own reader takes a truncated frame for the end of the file.
    """

    def __init__(self, raw: io.BufferedReader, make: Callable[[], Any]) -> None:
        self._raw, self._make, self._left, self._pending = raw, make, b"", b""
        self._member: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._left:
            piece = self._pending or self._raw.read(_PIECE)
            self._pending = b""
            if not piece:
                if self._member is not None:
                    raise EOFError("the compressed data is truncated")
                return 0
            self._unpack(piece)
        count = min(len(target), len(self._left))
        target[:count], self._left = self._left[:count], self._left[count:]
        return count

    def _unpack(self, piece: bytes) -> None:
        if self._member is None:
            piece = piece.lstrip(b"\0")  # gzip files may be padded with zeros
            if not piece:
                return
            self._member = self._make()
        try:
            self._left = self._member.decompress(piece)
        except OSError as error:  # how bz2 reports damaged data
            raise EOFError(str(error)) from error
        if self._member.eof:
            self._pending, self._member = self._member.unused_data, None
