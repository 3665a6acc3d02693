"""What is packed arrives as it was, in pieces that fit Ray's calls."""

from __future__ import annotations

import pytest

from journeyman.cluster.messages import PIECES, fits_a_call, packed, unpacked

_DIRECT = 100 << 10
"""Ray's max_direct_call_object_size."""


@pytest.mark.parametrize("size", [0, 1, 90_000, 98_304, 1 << 20, 3 << 19, (3 << 19) + 1, 5 << 20])
def test_a_value_arrives_as_it_was(size: int) -> None:
    value = bytes(range(256)) * (size // 256 + 1)
    pieces = packed([value, size])
    assert 1 <= len(pieces) <= PIECES
    assert unpacked([*pieces, *[b""] * (PIECES - len(pieces))]) == [value, size]
    assert fits_a_call(pieces) == all(len(piece) < _DIRECT - 1000 for piece in pieces)
    assert fits_a_call(pieces) == (size < 3 << 19)
