"""What this process and its workers send each other: pickled, in pieces that Ray puts into the call itself.

Ray takes an argument or a result of more than 100 kB through the object stores of both nodes, which costs their node
managers 3 ms of processor time for a megabyte and both ends 2 ms more than pieces in the call.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

PIECES = 16
"""Results of each call; those that are not needed are empty."""
_PIECE = 96 << 10
"""Bytes; with its header, it must be below Ray's max_direct_call_object_size of 100 KiB."""


def packed(value: Any) -> list[bytes]:
    """The pieces: up to PIECES, or a single one if the value is larger than they are together."""
    data = pickle.dumps(value, protocol=5)
    if not _PIECE < len(data) <= PIECES * _PIECE:
        return [data]
    return [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]


def fits_a_call(pieces: Sequence[bytes]) -> bool:
    """Whether Ray sends them in the call."""
    return len(pieces[0]) <= _PIECE


def unpacked(pieces: Sequence[bytes]) -> Any:
    """The value that was packed, as a copy of its own: what Ray unpickles would be read-only."""
    return pickle.loads(pieces[0] if len(pieces) == 1 else b"".join(pieces))
