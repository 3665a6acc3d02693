"""The values of a checkpoint's tensors, by rows, as float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.rounding import Intervals, plain_intervals
from journeyman.models.safetensors_file import StoredTensor

Values = NDArray[np.float32]
Bits = NDArray[np.uint16]


class NotBfloat16:
    """A tensor that is not stored in bfloat16."""

    def bfloat16_rows(self, start: int, stop: int) -> Bits | None:
        return None


class Quantized(NotBfloat16):
    """A tensor whose format does not tell what was rounded."""

    def originals(self, start: int, stop: int) -> Intervals | None:
        return None


class Readable(Protocol):
    """A tensor of a checkpoint, stored in whatever way.

    Attributes:
        shape: (out_features, in_features) for a matrix.
        storage: the format in which it is stored, such as BF16.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def storage(self) -> str: ...

    def rows(self, start: int, stop: int) -> Values:
        """Rows along the last axis; thread-safe."""

    def bfloat16_rows(self, start: int, stop: int) -> Bits | None:
        """See Base.bfloat16_rows."""

    def originals(self, start: int, stop: int) -> Intervals | None:
        """See Base.originals."""


@dataclass(frozen=True)
class Unquantized:
    """A tensor of floating-point numbers."""

    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def storage(self) -> str:
        return self.stored.dtype

    def rows(self, start: int, stop: int) -> Values:
        return as_float32(self.stored, self.stored.raw_rows(start, stop))

    def bfloat16_rows(self, start: int, stop: int) -> Bits | None:
        return self.stored.raw_rows(start, stop) if self.storage == "BF16" else None

    def originals(self, start: int, stop: int) -> Intervals | None:
        return plain_intervals(self.rows(start, stop), self.storage)


@dataclass(frozen=True)
class Shifted(NotBfloat16):
    """A tensor to whose values a number is added: norms that transformers stores without their 1."""

    inner: Readable
    by: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def storage(self) -> str:
        return self.inner.storage

    def rows(self, start: int, stop: int) -> Values:
        return self.inner.rows(start, stop) + np.float32(self.by)

    def originals(self, start: int, stop: int) -> Intervals | None:
        found = self.inner.originals(start, stop)
        return found and Intervals(found.low + np.float32(self.by), found.high + np.float32(self.by))


@dataclass(frozen=True)
class Pieces:
    """A tensor whose rows lie in several tensors, as many in each: (piece, its first row there)."""

    places: tuple[tuple[Readable, int], ...]
    shape: tuple[int, ...]

    @property
    def storage(self) -> str:
        return self.places[0][0].storage

    def rows(self, start: int, stop: int) -> Values:
        return np.concatenate([piece.rows(first, last) for piece, first, last in self._parts(start, stop)])

    def bfloat16_rows(self, start: int, stop: int) -> Bits | None:
        found = [piece.bfloat16_rows(first, last) for piece, first, last in self._parts(start, stop)]
        known = [one for one in found if one is not None]
        return np.concatenate(known) if len(known) == len(found) else None

    def originals(self, start: int, stop: int) -> Intervals | None:
        found = [piece.originals(first, last) for piece, first, last in self._parts(start, stop)]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        return Intervals(np.concatenate([one.low for one in known]), np.concatenate([one.high for one in known]))

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Readable, int, int]]:
        """(piece, first row, last row) of what these rows are."""
        each = self.shape[-2]
        for number in range(start // each, -(-stop // each)):
            piece, offset = self.places[number]
            first, last = max(start - number * each, 0), min(stop - number * each, each)
            yield piece, offset + first, offset + last


@dataclass(frozen=True)
class Computed(NotBfloat16):
    """A tensor that the file does not hold."""

    values: Values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def storage(self) -> str:
        return "F32"

    def rows(self, start: int, stop: int) -> Values:
        return self.values.reshape(-1, self.values.shape[-1])[start:stop]

    def originals(self, start: int, stop: int) -> Intervals | None:
        return plain_intervals(self.rows(start, stop), self.storage)


def as_float32(tensor: StoredTensor, raw: NDArray[Any]) -> Values:
    """Values that StoredTensor read; raises InputError if the type does not hold floating-point numbers."""
    convert = _CONVERT.get(tensor.dtype)
    if convert is None:
        raise InputError(
            f"{tensor.path}: tensor {plain(tensor.name, 120)!r} has type {tensor.dtype}, which holds no weights",
            "Use a checkpoint in BF16, F16 or F32",
        )
    return convert(raw)


def _from_bfloat16(raw: NDArray[Any]) -> Values:
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _float8_values() -> Values:
    """The value of each byte in E4M3 without infinities (Micikevicius et al., 2022, arXiv 2209.05433)."""
    byte = np.arange(256)
    sign, exponent, fraction = np.where(byte & 128, -1.0, 1.0), (byte >> 3) & 15, byte & 7
    values = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0))
    values[(byte & 127) == 127] = np.nan
    return (sign * values).astype(np.float32)


_FLOAT8 = _float8_values()
_CONVERT: dict[str, Callable[[NDArray[Any]], Values]] = {
    "F32": lambda raw: np.asarray(raw, np.float32),
    "F16": lambda raw: raw.astype(np.float32),
    "BF16": _from_bfloat16,
    "F8_E4M3": lambda raw: _FLOAT8[raw],
}
FLOATS = ("F32", "F16", "BF16")
"""Types of weights that are not quantized."""
