"""Triton kernels that dequantize GGUF's blocks, each with the same result as its reference in block_formats.

A program handles some rows of a tile: a block, or a part of one whose values lie in the same bytes, so that each byte
is read once and its values are written as runs of at least 16. Bytes are read as integers of 32 bits, values computed
in float32 and rounded once to the type of `out`. Each kernel gets the blocks twice, as bytes (`raw`) and as half
precision (`half`), because all formats have an even number of bytes and keep their scales at even places.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,import-not-found,import-untyped"
from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from journeyman.models.gpu.block_formats import FORMATS, TABLE_IQ4


@triton.jit
def _tile(raw, half, out, count, SIZE: tl.constexpr, VALUES: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr):
    """Where this program's blocks and values begin; the block and the part of each row; and which rows are real."""
    first = tl.program_id(0).to(tl.int64) * (ROWS // PARTS)
    row = tl.arange(0, ROWS)
    block, part = row // PARTS, row % PARTS
    return (raw + first * SIZE, half + first * (SIZE // 2), out + first * VALUES, block, part, first + block < count)


@triton.jit
def _scale(half, place, real):
    return tl.load(half + place, mask=real, other=0.0).to(tl.float32)


@triton.jit
def _bytes(raw, place, real):
    return tl.load(raw + place, mask=real, other=0).to(tl.int32)


@triton.jit
def _put(out, place, values, real):
    tl.store(out + place, values.to(out.dtype.element_ty), mask=real)


@triton.jit
def _q4(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    """Q4_0, Q4_1, Q5_0, Q5_1 and IQ4_NL: 16 bytes of two values."""
    raw, half, out, block, _, real = _tile(raw, half, out, count, SIZE, 32, 1, ROWS)
    at, inside = tl.arange(0, 16)[None, :], real[:, None]
    d = _scale(half, block * (SIZE // 2), real)[:, None]
    q = _bytes(raw, block[:, None] * SIZE + (SIZE - 16) + at, inside)
    low, high = q & 15, q >> 4
    if KIND == "Q5_0" or KIND == "Q5_1":
        bits_at = block * SIZE + (SIZE - 20)
        bits = _bytes(raw, bits_at, real) | _bytes(raw, bits_at + 1, real) << 8
        more = _bytes(raw, bits_at + 2, real) | _bytes(raw, bits_at + 3, real) << 8
        low |= ((bits[:, None] >> at) & 1) << 4
        high |= ((more[:, None] >> at) & 1) << 4
    if KIND == "Q4_1" or KIND == "Q5_1":
        m = _scale(half, block * (SIZE // 2) + 1, real)[:, None]
        low, high = d * low.to(tl.float32) + m, d * high.to(tl.float32) + m
    elif KIND == "IQ4_NL":
        low, high = d * tl.load(table + low), d * tl.load(table + high)
    else:
        least: tl.constexpr = 16 if KIND == "Q5_0" else 8
        low, high = d * (low - least).to(tl.float32), d * (high - least).to(tl.float32)
    place = block[:, None] * 32 + at
    _put(out, place, low, inside)
    _put(out, place + 16, high, inside)


@triton.jit
def _q8_0(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    raw, half, out, block, _, real = _tile(raw, half, out, count, SIZE, 32, 1, ROWS)
    at, inside = tl.arange(0, 32)[None, :], real[:, None]
    d = _scale(half, block * (SIZE // 2), real)[:, None]
    q = tl.load(raw + block[:, None] * SIZE + 2 + at, mask=inside, other=0).to(tl.int8, bitcast=True)
    _put(out, block[:, None] * 32 + at, d * q.to(tl.float32), inside)


@triton.jit
def _scale_and_minimum(raw, half, block, group, real, SIZE: tl.constexpr):
    """Those of a group of Q4_K or Q5_K."""
    place = block * SIZE + 4 + group
    low, high = _bytes(raw, place, real), _bytes(raw, place + 4, real)
    before = _bytes(raw, place - 4, real)  # for the first groups these are other bytes of the block, not used
    scale = tl.where(group < 4, low & 63, (high & 15) | ((before >> 2) & 48))
    minimum = tl.where(group < 4, high & 63, (high >> 4) | ((low >> 2) & 48))
    d, least = _scale(half, block * (SIZE // 2), real), _scale(half, block * (SIZE // 2) + 1, real)
    return (d * scale.to(tl.float32))[:, None], (least * minimum.to(tl.float32))[:, None]


@triton.jit
def _q4_k(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    """Q4_K and Q5_K: a row of a tile is a quarter of a block, 32 bytes of two values."""
    raw, half, out, block, part, real = _tile(raw, half, out, count, SIZE, 256, 4, ROWS)
    at, inside = tl.arange(0, 32)[None, :], real[:, None]
    q = _bytes(raw, block[:, None] * SIZE + (SIZE - 128) + part[:, None] * 32 + at, inside)
    low, high = q & 15, q >> 4
    if KIND == "Q5_K":
        bits = _bytes(raw, block[:, None] * SIZE + 16 + at, inside) >> (2 * part[:, None])
        low |= (bits & 1) << 4
        high |= (bits & 2) << 3
    place = block[:, None] * 256 + part[:, None] * 64 + at
    scale, minimum = _scale_and_minimum(raw, half, block, 2 * part, real, SIZE)
    _put(out, place, scale * low.to(tl.float32) - minimum, inside)
    scale, minimum = _scale_and_minimum(raw, half, block, 2 * part + 1, real, SIZE)
    _put(out, place + 32, scale * high.to(tl.float32) - minimum, inside)


@triton.jit
def _q6_k(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    """A row of a tile is a quarter of a block: 64 values in four runs of 16, one for each pair of high bits."""
    raw, half, out, block, part, real = _tile(raw, half, out, count, SIZE, 256, 4, ROWS)
    at, inside = tl.arange(0, 16)[None, :], real[:, None]
    side, run = part // 2, part % 2
    begin = block * SIZE
    low_at = (begin + side * 64 + run * 16)[:, None] + at
    first, second = _bytes(raw, low_at, inside), _bytes(raw, low_at + 32, inside)
    high = _bytes(raw, (begin + 128 + side * 32 + run * 16)[:, None] + at, inside)
    d = _scale(half, block * (SIZE // 2) + 104, real)
    for group in tl.static_range(4):
        low = first if group % 2 == 0 else second
        nibble = low & 15 if group < 2 else low >> 4
        q = nibble | (((high >> (2 * group)) & 3) << 4)
        scale_at = raw + begin + 192 + side * 8 + run + 2 * group
        scale = tl.load(scale_at, mask=real, other=0).to(tl.int8, bitcast=True).to(tl.float32)
        place = (block * 256 + side * 128 + run * 16 + group * 32)[:, None] + at
        _put(out, place, (d * scale)[:, None] * (q - 32).to(tl.float32), inside)


@triton.jit
def _q2_k(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    """Q2_K and Q3_K: a row of a tile is a quarter of a block, 16 bytes of four values."""
    raw, half, out, block, part, real = _tile(raw, half, out, count, SIZE, 256, 4, ROWS)
    at, inside = tl.arange(0, 16)[None, :], real[:, None]
    side, run = part // 2, part % 2
    begin, d_at = block * SIZE, block * (SIZE // 2)
    first: tl.constexpr = 32 if KIND == "Q3_K" else 16
    q = _bytes(raw, (begin + first + side * 32 + run * 16)[:, None] + at, inside)
    if KIND == "Q3_K":
        bits = _bytes(raw, (begin + run * 16)[:, None] + at, inside) >> (4 * side[:, None])
        d = _scale(half, d_at + 54, real)
    else:
        d, least = _scale(half, d_at + 40, real), _scale(half, d_at + 41, real)
    for group in tl.static_range(4):
        two = (q >> (2 * group)) & 3
        which = side * 8 + run + 2 * group
        place = (block * 256 + side * 128 + run * 16 + group * 32)[:, None] + at
        if KIND == "Q3_K":
            low = _bytes(raw, begin + 96 + which % 8, real) >> (4 * side)
            high = _bytes(raw, begin + 104 + which % 4, real) >> (2 * (which // 4))
            scale = d * (((low & 15) | ((high & 3) << 4)) - 32).to(tl.float32)
            integer = two - 4 + 4 * ((bits >> group) & 1)
            _put(out, place, scale[:, None] * integer.to(tl.float32), inside)
        else:
            both = _bytes(raw, begin + which, real)
            scale, minimum = d * (both & 15).to(tl.float32), least * (both >> 4).to(tl.float32)
            _put(out, place, scale[:, None] * two.to(tl.float32) - minimum[:, None], inside)


@triton.jit
def _iq4_xs(raw, half, out, table, count, ROWS: tl.constexpr, SIZE: tl.constexpr, KIND: tl.constexpr):
    """A row of a tile is an eighth of a block, 16 bytes of two values."""
    raw, half, out, block, part, real = _tile(raw, half, out, count, SIZE, 256, 8, ROWS)
    at, inside = tl.arange(0, 16)[None, :], real[:, None]
    begin = block * SIZE
    low = _bytes(raw, begin + 4 + part // 2, real) >> (4 * (part % 2))
    high = _bytes(raw, begin + 2 + part // 4, real) >> (2 * (part % 4))
    d = _scale(half, block * (SIZE // 2), real)
    scale = (d * (((low & 15) | ((high & 3) << 4)) - 32).to(tl.float32))[:, None]
    q = _bytes(raw, (begin + 8 + part * 16)[:, None] + at, inside)
    place = (block * 256 + part * 32)[:, None] + at
    _put(out, place, scale * tl.load(table + (q & 15)), inside)
    _put(out, place + 16, scale * tl.load(table + (q >> 4)), inside)


_KERNELS: dict[str, tuple[Any, int]] = {
    "Q4_0": (_q4, 1), "Q4_1": (_q4, 1), "Q5_0": (_q4, 1), "Q5_1": (_q4, 1), "IQ4_NL": (_q4, 1), "Q8_0": (_q8_0, 1),
    "Q2_K": (_q2_k, 4), "Q3_K": (_q2_k, 4), "Q4_K": (_q4_k, 4), "Q5_K": (_q4_k, 4), "Q6_K": (_q6_k, 4),
    "IQ4_XS": (_iq4_xs, 8),
}  # fmt: skip
"""Format → its kernel, and how many rows of a tile a block is."""
_ROWS, _WARPS = 128, 4


@cache
def _table(device: torch.device) -> Tensor:
    return torch.tensor(TABLE_IQ4, device=device, dtype=torch.float32)


def dequantize(raw: Tensor, kind: str, out: Tensor) -> None:
    """As block_formats.dequantize, on a GPU."""
    kernel, parts = _KERNELS[kind]
    count = raw.numel() // FORMATS[kind].size
    assert raw.is_contiguous() and out.is_contiguous() and out.numel() == count * FORMATS[kind].values
    if count:
        kernel[(triton.cdiv(count * parts, _ROWS),)](
            raw, raw.view(-1).view(torch.float16), out, _table(raw.device), count, ROWS=_ROWS, SIZE=FORMATS[kind].size,
            KIND=kind, num_warps=_WARPS,
        )  # fmt: skip
