"""Weights that a checkpoint stores in few bits, as float32 values by rows.

Each class states its formula; tests/models/test_hf_quantized.py compares it with files that the methods' own libraries
wrote. Products are computed in float32, without the rounding to half precision that some kernels add.
Shape letters: O out_features (rows), I in_features, G groups.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.hf_values import FLOATS, Values, as_float32
from journeyman.models.safetensors_file import StoredTensor

_REMEDY = "Use the checkpoint in BF16 that it was made from"
_MOST_STATE = 1 << 16


@lru_cache(maxsize=8)
def _whole(tensor: StoredTensor) -> NDArray[Any]:
    """All values as stored: a row is spread over the file in these formats, and rows are asked for in turn."""
    return tensor.raw()


@lru_cache(maxsize=8)
def _whole_float(tensor: StoredTensor) -> Values:
    return as_float32(tensor, tensor.raw())


@dataclass(frozen=True)
class Scaled:
    """W = q · s, with s for a block of rows and columns, for a row, or for the whole tensor."""

    weight: StoredTensor
    scale: StoredTensor
    block: tuple[int, int]

    @staticmethod
    def of(weight: StoredTensor, scale: StoredTensor, block: Sequence[int] | None) -> Scaled:
        if len(weight.shape) != 2 or weight.dtype not in ("F8_E4M3", "I8", *FLOATS):
            raise _refusal(weight, f"has type {weight.dtype} and shape {weight.shape}")
        rows, columns = weight.shape
        sizes = (block[0], block[1]) if block else (1 if scale.shape[:1] == (rows,) else rows, columns)
        counts = (-(-rows // sizes[0]), -(-columns // sizes[1]))
        if scale.dtype not in FLOATS or np.prod(scale.shape, dtype=int) != counts[0] * counts[1]:
            raise _refusal(scale, f"has type {scale.dtype} and shape {scale.shape}, for weights of {weight.shape}")
        return Scaled(weight, scale, sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def storage(self) -> str:
        return self.weight.dtype

    def rows(self, start: int, stop: int) -> Values:
        raw = self.weight.raw_rows(start, stop)
        values = raw.astype(np.float32) if self.weight.dtype == "I8" else as_float32(self.weight, raw)
        high, wide = self.block
        scale = _whole_float(self.scale).reshape(-(-self.shape[0] // high), -1)
        of_row = scale[np.arange(start, stop) // high]
        return values * np.repeat(of_row, wide, axis=1)[:, : self.shape[1]]


@dataclass(frozen=True)
class Gptq:
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
            raise _refusal(self.weight, f"has type {self.weight.dtype} and shape {self.weight.shape}")
        return (self.weight.shape[1], self.weight.shape[0] * 32 // self.bits)

    @property
    def storage(self) -> str:
        return f"GPTQ {self.bits} bits"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        q_IO = _unpacked(np.ascontiguousarray(_whole(self.weight)[:, start:stop].T), self.bits).T
        z_GO = _unpacked(_whole(self.zeros), self.bits)[:, start:stop]
        s_GO = _whole_float(self.scales)[:, start:stop]
        if z_GO.shape != s_GO.shape or s_GO.shape[1] != stop - start:
            raise _refusal(self.zeros, f"has the shape {self.zeros.shape}, which does not fit {self.scales.shape}")
        if self.offset and (z_GO == (1 << self.bits) - 1).any():
            raise _refusal(self.zeros, "has a zero point that kernels read in different ways")
        group_I = self._groups(columns, len(s_GO))
        return (s_GO[group_I] * (q_IO.astype(np.float32) - (z_GO[group_I] + self.offset).astype(np.float32))).T

    def _groups(self, columns: int, count: int) -> NDArray[Any]:
        if self.group_of is None:
            size = columns if self.group_size == -1 else self.group_size
            group_I = np.arange(columns) // max(size, 1)
        else:
            group_I = _whole(self.group_of)
        if group_I.shape != (columns,) or group_I.dtype.kind != "i" or group_I.min() < 0 or group_I.max() >= count:
            raise _refusal(self.group_of or self.scales, f"does not give {columns} columns one of {count} groups")
        return group_I


_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column, of eight, that each integer of a word belongs to."""


@dataclass(frozen=True)
class Awq:
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
            raise _refusal(self.weight, f"has type {self.weight.dtype} and shape {self.weight.shape}")
        return (self.weight.shape[1] * 8, self.weight.shape[0])

    @property
    def storage(self) -> str:
        return "AWQ 4 bits"

    def rows(self, start: int, stop: int) -> Values:
        first, last = start // 8, -(-stop // 8)
        q_IO, z_GO = (_in_order(_whole(one)[:, first:last]) for one in (self.weight, self.zeros))
        q_IO, z_GO = (one[:, start - 8 * first : stop - 8 * first] for one in (q_IO, z_GO))
        s_GO = _whole_float(self.scales)[:, start:stop]
        size = self.shape[1] if self.group_size == -1 else self.group_size
        if z_GO.shape != s_GO.shape or size <= 0 or len(s_GO) * size != len(q_IO):
            raise _refusal(self.zeros, f"has the shape {self.zeros.shape}, for scales of {self.scales.shape}")
        spread = [np.repeat(one, size, axis=0) for one in (z_GO.astype(np.float32), s_GO)]
        return (spread[1] * (q_IO.astype(np.float32) - spread[0])).T


def _in_order(words: NDArray[Any]) -> NDArray[Any]:
    values = _unpacked(words, 4).reshape(len(words), -1, 8)
    ordered = np.empty_like(values)
    ordered[:, :, _AWQ_ORDER] = values
    return ordered.reshape(len(words), -1)


@dataclass(frozen=True)
class PackedIntegers:
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
        found = _whole(self.size).reshape(-1).tolist()
        words = self.weight.shape
        if len(found) != 2 or len(words) != 2 or words != (found[0], -(-found[1] * self.bits // 32)):
            raise _refusal(self.weight, f"has the shape {words}, for a weight of {found}")
        return tuple(found)

    @property
    def storage(self) -> str:
        return f"packed {self.bits} bits"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        q = _unpacked(self.weight.raw_rows(start, stop), self.bits)[:, :columns].astype(np.float32)
        scale = _whole_float(self.scale)[start:stop]
        size = columns if self.group_size in (None, -1) else int(self.group_size or 0)
        if size <= 0 or scale.shape != (stop - start, -(-columns // size)):
            raise _refusal(self.scale, f"has the shape {self.scale.shape}, for a weight of {self.shape}")
        if self.zeros is None:
            zero: Any = np.float32(1 << (self.bits - 1))
        else:
            packed = np.ascontiguousarray(_whole(self.zeros).T)
            zero = np.repeat(_unpacked(packed, self.bits)[:, start:stop].T, size, axis=1)[:, :columns].astype(
                np.float32
            )
        return np.repeat(scale, size, axis=1)[:, :columns] * (q - zero)


@dataclass(frozen=True)
class Bitsandbytes4:
    """W[k] = code[q[k]] · absmax[k // block], in row-major order (arXiv 2305.14314).

    Two integers lie in a byte, the first one in the high bits; the file has the table `code` of NF4 or FP4. If absmax
    is quantized too, it is table[a[j]] · absmax2[j // block2] + offset.
    """

    weight: StoredTensor
    absmax: StoredTensor
    code: StoredTensor
    shape: tuple[int, ...]
    kind: str
    block: int
    nested: tuple[StoredTensor, StoredTensor, int, float] | None

    @staticmethod
    def of(weight: StoredTensor, parts: Mapping[str, StoredTensor]) -> Bitsandbytes4:
        """Args: parts: the tensors whose names begin with the weight's, by what follows it."""
        (mark,) = [name for name in parts if name.startswith("quant_state.")] or ["none"]
        state = _state_of(parts[mark])
        shape, block = state.get("shape"), state.get("blocksize")
        nested = None
        if "nested_absmax" in parts:
            second, offset = state.get("nested_blocksize"), state.get("nested_offset")
            if "nested_quant_map" not in parts or type(second) is not int or second <= 0 or type(offset) is not float:
                raise _refusal(weight, "has no complete scales of its scales")
            nested = (parts["nested_absmax"], parts["nested_quant_map"], second, offset)
        sizes = isinstance(shape, list) and len(shape) == 2 and all(type(one) is int and one > 0 for one in shape)
        if not sizes or type(block) is not int or block <= 0 or "absmax" not in parts or "quant_map" not in parts:
            raise _refusal(weight, "has no complete description (quant_state)")
        count = shape[0] * shape[1]
        bytes_there, scales_there = (np.prod(one.shape, dtype=int) for one in (weight, parts["absmax"]))
        if weight.dtype != "U8" or shape[1] % 2 or bytes_there * 2 != count or scales_there != -(-count // block):
            raise _refusal(weight, f"has type {weight.dtype} and shape {weight.shape}, for a weight of {shape}")
        if parts["quant_map"].shape != (16,) or (nested is None) != (parts["absmax"].dtype != "U8"):
            raise _refusal(weight, "has scales that do not fit its description (quant_state)")
        kind = mark.partition("bitsandbytes__")[2]
        return Bitsandbytes4(weight, parts["absmax"], parts["quant_map"], tuple(shape), kind, block, nested)

    @property
    def storage(self) -> str:
        return f"bitsandbytes {self.kind}"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        flat = _whole(self.weight).reshape(-1)[start * columns // 2 : stop * columns // 2]
        q = np.stack([flat >> 4, flat & 15], axis=1).reshape(-1)
        block_of = np.arange(start * columns, stop * columns) // self.block
        first, last = int(block_of[0]), int(block_of[-1]) + 1
        scale = self._scales(first, last)[block_of - first]
        return (_whole_float(self.code)[q] * scale).reshape(stop - start, columns)

    def _scales(self, first: int, last: int) -> Values:
        if self.nested is None:
            return _whole_float(self.absmax).reshape(-1)[first:last]
        of_blocks, table, block, offset = self.nested
        second = _whole_float(of_blocks).reshape(-1)[np.arange(first, last) // block]
        first_level = _whole_float(table)[_whole(self.absmax).reshape(-1)[first:last]]
        return first_level * second + np.float32(offset)


def _state_of(tensor: StoredTensor) -> dict[str, Any]:
    if tensor.dtype != "U8" or np.prod(tensor.shape, dtype=int) > _MOST_STATE:
        raise _refusal(tensor, f"has type {tensor.dtype} and shape {tensor.shape}")
    try:
        found = json.loads(tensor.raw().tobytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _refusal(tensor, "is not a JSON object")
    return found


def _unpacked(words: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unsigned integers of `bits` bits from words of 32 bits along the last axis, the first in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    found = (words.view(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return found.astype(np.int32).reshape(*words.shape[:-1], -1)


def _refusal(tensor: StoredTensor, what: str) -> InputError:
    return InputError(f"{tensor.path}: tensor {plain(tensor.name, 120)!r} {what}", _REMEDY)
