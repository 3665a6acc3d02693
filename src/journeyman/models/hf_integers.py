"""Weights that a checkpoint stores as integers of a few bits in words of 32, as float32 values by rows.

Each class states its formula; tests/models/test_hf_quantized.py compares it with files that the methods' own libraries
wrote. Products are computed in float32, without the rounding to half precision that some kernels add.
Shape letters: O out_features (rows), I in_features, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.models.hf_dequantized import refusal, whole, whole_float
from journeyman.models.hf_values import Quantized, Values
from journeyman.models.safetensors_file import StoredTensor


@dataclass(frozen=True)
class Gptq(Quantized):
    """W[o, i] = s[g, o] · (q[i, o] - z[g, o] - offset), with g the group of column i (arXiv 2210.17323).

    Integers of `bits` bits lie in words of 32, the first one in the lowest bits: q along I, z along O.
    """

    weight: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    group_of: StoredTensor | None
    bits: int
    group_size: int
    offset: int

    @property
    def shape(self) -> tuple[int, ...]:
        if len(self.weight.shape) != 2 or self.weight.dtype != "I32":
            raise refusal(self.weight, f"has type {self.weight.dtype} and shape {self.weight.shape}")
        return (self.weight.shape[1], self.weight.shape[0] * 32 // self.bits)

    @property
    def storage(self) -> str:
        return f"GPTQ {self.bits} bits"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        q_IO = _unpacked(np.ascontiguousarray(whole(self.weight)[:, start:stop].T), self.bits).T
        z_GO = _unpacked(whole(self.zeros), self.bits)[:, start:stop]
        s_GO = whole_float(self.scales)[:, start:stop]
        if z_GO.shape != s_GO.shape or s_GO.shape[1] != stop - start:
            raise refusal(self.zeros, f"has the shape {self.zeros.shape}, which does not fit {self.scales.shape}")
        if self.offset and (z_GO == (1 << self.bits) - 1).any():
            raise refusal(self.zeros, "has a zero point that kernels read in different ways")
        group_I = self._groups(columns, len(s_GO))
        values: Values = s_GO[group_I] * (q_IO - z_GO[group_I] - self.offset).astype(np.float32)
        return values.T

    def _groups(self, columns: int, count: int) -> NDArray[Any]:
        if self.group_of is None:
            size = columns if self.group_size == -1 else self.group_size
            group_I = np.arange(columns) // max(size, 1)
        else:
            group_I = whole(self.group_of)
        if group_I.shape != (columns,) or group_I.dtype.kind != "i" or group_I.min() < 0 or group_I.max() >= count:
            raise refusal(self.group_of or self.scales, f"does not give {columns} columns one of {count} groups")
        return group_I


_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column, of eight, that each integer of a word belongs to."""


@dataclass(frozen=True)
class Awq(Quantized):
    """W[o, i] = s[g, o] · (q[i, o] - z[g, o]), in the order of AWQ's GEMM kernel (arXiv 2306.00978).

    Integers of 4 bits lie in words of 32 along O, in the order _AWQ_ORDER.
    """

    weight: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    group_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        if len(self.weight.shape) != 2 or self.weight.dtype != "I32":
            raise refusal(self.weight, f"has type {self.weight.dtype} and shape {self.weight.shape}")
        return (self.weight.shape[1] * 8, self.weight.shape[0])

    @property
    def storage(self) -> str:
        return "AWQ 4 bits"

    def rows(self, start: int, stop: int) -> Values:
        first, last = start // 8, -(-stop // 8)
        q_IO, z_GO = (_in_order(whole(one)[:, first:last]) for one in (self.weight, self.zeros))
        q_IO, z_GO = (one[:, start - 8 * first : stop - 8 * first] for one in (q_IO, z_GO))
        s_GO = whole_float(self.scales)[:, start:stop]
        size = self.shape[1] if self.group_size == -1 else self.group_size
        if z_GO.shape != s_GO.shape or size <= 0 or len(s_GO) * size != len(q_IO):
            raise refusal(self.zeros, f"has the shape {self.zeros.shape}, for scales of {self.scales.shape}")
        values: Values = np.repeat(s_GO, size, axis=0) * (q_IO - np.repeat(z_GO, size, axis=0)).astype(np.float32)
        return values.T


def _in_order(words: NDArray[Any]) -> NDArray[Any]:
    values = _unpacked(words, 4).reshape(len(words), -1, 8)
    ordered = np.empty_like(values)
    ordered[:, :, _AWQ_ORDER] = values
    return ordered.reshape(len(words), -1)


@dataclass(frozen=True)
class PackedIntegers(Quantized):
    """W[o, i] = s[o, g] · (q[o, i] - z[o, g]) of compressed-tensors; without z, it is 2^(bits - 1).

    Integers lie in words of 32 bits, the first one in the lowest bits: q along I, z along O.
    """

    weight: StoredTensor
    scale: StoredTensor
    size: StoredTensor
    zeros: StoredTensor | None
    bits: int
    group_size: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        found = whole(self.size).reshape(-1).tolist()
        words = self.weight.shape
        if len(found) != 2 or len(words) != 2 or words != (found[0], -(-found[1] * self.bits // 32)):
            raise refusal(self.weight, f"has the shape {words}, for a weight of {found}")
        return tuple(found)

    @property
    def storage(self) -> str:
        return f"packed {self.bits} bits"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        q = _unpacked(self.weight.raw_rows(start, stop), self.bits)[:, :columns].astype(np.float32)
        scale = whole_float(self.scale)[start:stop]
        size = columns if self.group_size in (None, -1) else int(self.group_size or 0)
        if size <= 0 or scale.shape != (stop - start, -(-columns // size)):
            raise refusal(self.scale, f"has the shape {self.scale.shape}, for a weight of {self.shape}")
        if self.zeros is None:
            zero: Any = np.float32(1 << (self.bits - 1))
        else:
            packed = np.ascontiguousarray(whole(self.zeros).T)
            zero = np.repeat(_unpacked(packed, self.bits)[:, start:stop].T, size, axis=1)[:, :columns].astype(
                np.float32
            )
        values: Values = np.repeat(scale, size, axis=1)[:, :columns] * (q - zero)
        return values


def _unpacked(words: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unsigned integers of `bits` bits from words of 32 bits along the last axis, the first in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    found = (words.view(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return found.astype(np.int32).reshape(*words.shape[:-1], -1)
