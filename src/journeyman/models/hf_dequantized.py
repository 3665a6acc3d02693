"""Weights that a checkpoint stores in bytes with scales, as float32 values by rows; see also hf_integers.

Each class states its formula; tests/models/test_hf_quantized.py compares it with files that the methods' own libraries
wrote. Products are computed in float32, without the rounding to half precision that some kernels add.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.hf_values import FLOATS, Quantized, Values, as_float32
from journeyman.models.safetensors_file import StoredTensor

_REMEDY = "Use the checkpoint in BF16 that it was made from"
_MOST_STATE = 1 << 16


@lru_cache(maxsize=8)
def whole(tensor: StoredTensor) -> NDArray[Any]:
    """All values as stored: a row is spread over the file in these formats, and rows are asked for in turn."""
    return tensor.raw()


@lru_cache(maxsize=8)
def whole_float(tensor: StoredTensor) -> Values:
    return as_float32(tensor, tensor.raw())


@dataclass(frozen=True)
class Scaled(Quantized):
    """W = q · s, with s for a block of rows and columns, for a row, or for the whole tensor."""

    weight: StoredTensor
    scale: StoredTensor
    block: tuple[int, int]

    @staticmethod
    def of(weight: StoredTensor, scale: StoredTensor, block: Sequence[int] | None) -> Scaled:
        if len(weight.shape) != 2 or weight.dtype not in ("F8_E4M3", "I8"):
            raise refusal(weight, f"has type {weight.dtype} and shape {weight.shape}")
        rows, columns = weight.shape
        sizes = (block[0], block[1]) if block else (1 if scale.shape[:1] == (rows,) else rows, columns)
        counts = (-(-rows // sizes[0]), -(-columns // sizes[1]))
        if scale.dtype not in FLOATS or math.prod(scale.shape) != counts[0] * counts[1]:
            raise refusal(scale, f"has type {scale.dtype} and shape {scale.shape}, for weights of {weight.shape}")
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
        scale = whole_float(self.scale).reshape(-(-self.shape[0] // high), -1)
        of_row = scale[np.arange(start, stop) // high]
        return values * np.repeat(of_row, wide, axis=1)[:, : self.shape[1]]


@dataclass(frozen=True)
class Bitsandbytes4(Quantized):
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
        marks = [name for name in parts if name.startswith("quant_state.")]
        state = _state_of(parts[marks[0]])
        shape = state.get("shape")
        if len(marks) != 1 or not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_size, shape)):
            raise refusal(weight, "has no complete description (quant_state)")
        block, count = _size(weight, state, "blocksize"), shape[0] * shape[1]
        absmax, code = _part(weight, parts, "absmax", -(-count // block)), _part(weight, parts, "quant_map", 16)
        if weight.dtype != "U8" or shape[1] % 2 or math.prod(weight.shape) * 2 != count:
            raise refusal(weight, f"has type {weight.dtype} and shape {weight.shape}, for a weight of {shape}")
        nested = None
        if absmax.dtype == "U8":
            second, offset = _size(weight, state, "nested_blocksize"), state.get("nested_offset")
            if not isinstance(offset, float) or not math.isfinite(offset):
                raise refusal(weight, "has no complete description (quant_state)")
            of_blocks = _part(weight, parts, "nested_absmax", -(-math.prod(absmax.shape) // second))
            nested = (of_blocks, _part(weight, parts, "nested_quant_map", 256), second, offset)
        kind = marks[0].partition("bitsandbytes__")[2]
        return Bitsandbytes4(weight, absmax, code, (shape[0], shape[1]), kind, block, nested)

    @property
    def storage(self) -> str:
        return f"bitsandbytes {self.kind}"

    def rows(self, start: int, stop: int) -> Values:
        columns = self.shape[1]
        flat = whole(self.weight).reshape(-1)[start * columns // 2 : stop * columns // 2]
        q = np.stack([flat >> 4, flat & 15], axis=1).reshape(-1)
        block_of = np.arange(start * columns, stop * columns) // self.block
        first, last = int(block_of[0]), int(block_of[-1]) + 1
        scale = self._scales(first, last)[block_of - first]
        values: Values = whole_float(self.code)[q] * scale
        return values.reshape(stop - start, columns)

    def _scales(self, first: int, last: int) -> Values:
        if self.nested is None:
            return whole_float(self.absmax).reshape(-1)[first:last]
        of_blocks, table, block, offset = self.nested
        second = whole_float(of_blocks).reshape(-1)[np.arange(first, last) // block]
        first_level = whole_float(table)[whole(self.absmax).reshape(-1)[first:last]]
        scales: Values = first_level * second + np.float32(offset)
        return scales


def _part(weight: StoredTensor, parts: Mapping[str, StoredTensor], name: str, count: int) -> StoredTensor:
    found = parts.get(name)
    if found is None or math.prod(found.shape) != count:
        raise refusal(weight, f"needs a tensor {name!r} of {count} values")
    return found


def _size(weight: StoredTensor, state: Mapping[str, Any], key: str) -> int:
    value = state.get(key)
    if not _is_size(value):
        raise refusal(weight, f"has {plain(repr(value), 40)} as {key}")
    return int(value or 0)


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _state_of(tensor: StoredTensor) -> dict[str, Any]:
    if tensor.dtype != "U8" or math.prod(tensor.shape) > _MOST_STATE:
        raise refusal(tensor, f"has type {tensor.dtype} and shape {tensor.shape}")
    try:
        found = json.loads(tensor.raw().tobytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise refusal(tensor, "is not a JSON object")
    return found


def refusal(tensor: StoredTensor, what: str) -> InputError:
    return InputError(f"{tensor.path}: tensor {plain(tensor.name, 120)!r} {what}", _REMEDY)
