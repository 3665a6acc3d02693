"""Reads the pieces of a SentencePiece model (`tokenizer.model`), a protocol buffer, without that library.

Source: google/sentencepiece, src/sentencepiece_model.proto. Field 1 of the model repeats pieces; their fields are
1 text, 2 score, 3 type. Types have the numbers that GGUF uses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from journeyman.errors import InputError

_MOST_BYTES = 1 << 26
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5
_NORMAL = 1


class Piece(NamedTuple):
    """A token with its score and its type, in GGUF's numbers."""

    text: str
    score: float
    kind: int


def pieces_of(path: Path) -> list[Piece]:
    """The pieces of a model in the order of their ids.

    Raises:
        InputError: the file is no SentencePiece model.
    """
    remedy = "Download tokenizer.model again; it must be the file of the same model"
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, too many for a SentencePiece model", remedy)
    try:
        pieces = [_piece(value) for field, value in _fields(path.read_bytes()) if field == 1]
    except (ValueError, struct.error) as error:
        raise InputError(f"{path}: not a SentencePiece model: {error}", remedy) from error
    if not pieces:
        raise InputError(f"{path}: not a SentencePiece model: it has no pieces", remedy)
    return pieces


def _piece(data: bytes | int) -> Piece:
    text, score, kind = "", 0.0, _NORMAL
    for field, value in _fields(_sized(data)):
        if field == 1:
            text = _sized(value).decode()
        elif field == 2:
            (score,) = struct.unpack("<f", _sized(value))
        elif field == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _sized(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The (number, value) of each field."""
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value: bytes | int
            value, at = _number(data, at)
        elif kind in (_EIGHT_BYTES, _SIZED, _FOUR_BYTES):
            size, at = _number(data, at) if kind == _SIZED else (8 if kind == _EIGHT_BYTES else 4, at)
            if size > len(data) - at:
                raise ValueError(f"a field of {size:,} bytes ends after the data")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        yield tag >> 3, value


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise ValueError("a number is too long")
