"""Bodies as they were sent, decoded for a row: JSON, joined streams, or text. Others are counted and not kept."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import zstandard

from journeyman.sources.streams import Joined, events_of, join

MOST_BYTES = 256 << 20
"""A compressed body that becomes larger than this is not read."""
_STEP = 1 << 10
CODINGS = ("identity", "gzip", "x-gzip", "deflate", "zstd")


@dataclass
class Body:
    """What a row has of a body.

    Attributes:
        value: the JSON value, the joined answer, or the text; None if there is none.
        unread: why there is none although there were bytes.
        stream: of a streamed answer.
        rest: the beginning of an event that was not completed.
    """

    value: Any = None
    unread: str = ""
    stream: Joined | None = None
    rest: str = ""


def body_of(data: bytes, kind: str, coding: str, most: int = MOST_BYTES) -> Body:
    """Decodes a body.

    Args:
        kind: its content type; empty: JSON, if it is.
        coding: its content coding.
        most: bytes that it may become.
    """
    if not data:
        return Body()
    try:
        return text_of(decompressed(data, coding, most), kind)
    except (ValueError, zlib.error, zstandard.ZstdError) as error:
        return Body(unread=f"content coding {coding[:40]!r}: {error}")


def text_of(plain: bytes, kind: str, *, yields: bool = False) -> Body:
    """Decodes a body that has no content coding (any more).

    Args:
        yields: let other threads run at each object and number: without that, the JSON parser lets none run at all.
    """
    streamed = kind.partition(";")[0].strip().lower() == "text/event-stream"
    try:
        text = plain.decode("utf-8", "replace" if streamed else "strict")
    except UnicodeDecodeError:
        return Body(unread="not text")
    if streamed:
        events, rest = events_of(text.removeprefix("\ufeff"))
        joined = join(events)
        return Body(joined.answer, stream=joined, rest=rest)
    try:
        return Body(json.loads(text, object_hook=_same, parse_int=_whole_number) if yields else json.loads(text))
    except RecursionError:
        return Body(unread="nested too deeply")
    except ValueError:
        return Body(text)


def _same(value: dict[str, Any]) -> dict[str, Any]:
    return value


def _whole_number(digits: str) -> int:
    return int(digits)


def decompressed(data: bytes, coding: str, most: int = MOST_BYTES) -> bytes:
    """The body without its content codings; an incomplete one gives what can be read.

    Args:
        most: bytes that it may become.

    Raises:
        ValueError: the coding is unknown, or the body becomes too large.
        zlib.error, zstandard.ZstdError: it is damaged.
    """
    for one in reversed([name.strip().lower() for name in coding.split(",") if name.strip()]):
        if one == "identity":
            continue
        if one == "zstd":
            data = _unpacked_zstd(data, most)
        elif one in ("gzip", "x-gzip", "deflate"):
            unpacker = zlib.decompressobj(47 if one != "deflate" or data[:1] == b"\x78" else -15)
            data = unpacker.decompress(data, most)
            if unpacker.unconsumed_tail:
                raise ValueError("too large")
        else:
            raise ValueError("unknown")
    return data


def _unpacked_zstd(data: bytes, most: int) -> bytes:
    unpacker, pieces, size = zstandard.ZstdDecompressor().decompressobj(), [], 0
    for start in range(0, len(data), _STEP):  # few bytes can become very many
        pieces.append(unpacker.decompress(data[start : start + _STEP]))
        size += len(pieces[-1])
        if size > most:
            raise ValueError("too large")
        if unpacker.eof:
            break
    return b"".join(pieces)
