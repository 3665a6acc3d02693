"""The block formats of GGUF in torch: the readable reference for the kernels (block_kernels), which runs on any device.

A block has a few scales in half precision and many small integers; blocks follow one another, and a row is a whole
number of them. Layouts: ggml-org/llama.cpp, ggml/src/ggml-common.h. Letters: N blocks, B bytes of a block, V values.

The values are those of the package `gguf`, bit for bit, however the arithmetic is ordered or fused. In every format
here, products of scales and integers are exact in float32: a scale has 11 significant bits, and the integers that
multiply it, at most two, have 13 together (the bound is below, beside each format), which makes 24, as many as float32
has; the smallest scale is 2⁻²⁴, so nothing underflows. What is left is at most one subtraction or addition of two exact
products, which rounds once, with or without a fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TABLE_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The 16 levels of IQ4_NL and IQ4_XS."""


@dataclass(frozen=True)
class Format:
    """A block format.

    Attributes:
        values, size: how many values a block has, and how many bytes.
        scales_at: where its scales in half precision are, in bytes: that of the values, and that of the minima.
        decode: blocks (N, B), uint8 → their values (N, V), float32.
    """

    values: int
    size: int
    scales_at: tuple[int, ...]
    decode: Callable[[Tensor], Tensor]


def _half(blocks_NB: Tensor, at: int) -> Tensor:
    """The number in half precision at this byte of each block (N, 1), float32."""
    return blocks_NB[:, at : at + 2].contiguous().view(torch.float16).float()


def _signed(bytes_: Tensor) -> Tensor:
    return bytes_.contiguous().view(torch.int8).float()


def _grouped(x_NV: Tensor, groups: int) -> Tensor:
    """(N, groups, V / groups)."""
    return x_NV.reshape(len(x_NV), groups, -1)


def _nibbles(bytes_NQ: Tensor, group: int) -> Tensor:
    """Each `group` bytes hold 2·group values: the low halves of the bytes, then the high halves."""
    grouped = _grouped(bytes_NQ, bytes_NQ.shape[1] // group)
    return torch.cat([grouped & 15, grouped >> 4], dim=2).flatten(1)


def _pairs(bytes_NQ: Tensor) -> Tensor:
    """Each 32 bytes hold 128 values of two bits: the lowest two bits of the bytes, then the next two, and so on."""
    grouped = _grouped(bytes_NQ, bytes_NQ.shape[1] // 32)
    return torch.cat([grouped >> shift & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)


def _bits(bytes_N32: Tensor) -> Tensor:
    """32 bytes hold 256 bits: the lowest bit of all, then the next, and so on."""
    return torch.cat([bytes_N32 >> shift & 1 for shift in range(8)], dim=1)


def _fifth_bits(bytes_N4: Tensor) -> Tensor:
    """The 32 bits of four bytes, lowest first."""
    return torch.stack([bytes_N4 >> shift & 1 for shift in range(8)], dim=2).flatten(1)


def _scaled(scale_NG: Tensor, integers_NV: Tensor) -> Tensor:
    """The integers times the scale of their group."""
    return (scale_NG[:, :, None] * _grouped(integers_NV.float(), scale_NG.shape[1])).flatten(1)


def _q4_0(b: Tensor) -> Tensor:
    return _scaled(_half(b, 0), _nibbles(b[:, 2:], 16).float() - 8)  # 4 bits


def _q4_1(b: Tensor) -> Tensor:
    return _scaled(_half(b, 0), _nibbles(b[:, 4:], 16)) + _half(b, 2)  # 4 bits


def _q5_0(b: Tensor) -> Tensor:
    integers = _nibbles(b[:, 6:], 16) | _fifth_bits(b[:, 2:6]) << 4
    return _scaled(_half(b, 0), integers.float() - 16)  # 5 bits


def _q5_1(b: Tensor) -> Tensor:
    integers = _nibbles(b[:, 8:], 16) | _fifth_bits(b[:, 4:8]) << 4
    return _scaled(_half(b, 0), integers) + _half(b, 2)  # 5 bits


def _q8_0(b: Tensor) -> Tensor:
    return _scaled(_half(b, 0), _signed(b[:, 2:]))  # 8 bits


def _q2_k(b: Tensor) -> Tensor:
    scale, minimum = _half(b, 80) * (b[:, :16] & 15), _half(b, 82) * (b[:, :16] >> 4)
    return _less(_scaled(scale, _pairs(b[:, 16:80])), minimum)  # 4 + 2 bits


def _q3_k(b: Tensor) -> Tensor:
    low = torch.cat([b[:, 96:104] & 15, b[:, 96:104] >> 4], dim=1)
    high = torch.cat([b[:, 104:108] >> shift & 3 for shift in (0, 2, 4, 6)], dim=1)
    scale = _half(b, 108) * ((low | high << 4).float() - 32)
    return _scaled(scale, _pairs(b[:, 32:96]).float() - 4 * (1 - _bits(b[:, :32]).float()))  # 6 + 3 bits


def _q4_k(b: Tensor) -> Tensor:
    scale, minimum = _scales_and_minima(b)
    return _less(_scaled(scale, _nibbles(b[:, 16:], 32)), minimum)  # 6 + 4 bits


def _q5_k(b: Tensor) -> Tensor:
    scale, minimum = _scales_and_minima(b)
    return _less(_scaled(scale, _nibbles(b[:, 48:], 32) | _bits(b[:, 16:48]) << 4), minimum)  # 6 + 5 bits


def _q6_k(b: Tensor) -> Tensor:
    integers = _nibbles(b[:, :128], 64) | _pairs(b[:, 128:192]) << 4
    # 7 + 5 bits and two signs; -128 and -32 are powers of two, which add none.
    return _scaled(_half(b, 208) * _signed(b[:, 192:208]), integers.float() - 32)


def _iq4_nl(b: Tensor) -> Tensor:
    return _scaled(_half(b, 0), _of_table(_nibbles(b[:, 2:], 16)))  # 7 bits and a sign


def _iq4_xs(b: Tensor) -> Tensor:
    low = _nibbles(b[:, 4:8], 1)
    high = torch.stack([b[:, 2:4] >> shift & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    scale = _half(b, 0) * ((low | high << 4).float() - 32)
    return _scaled(scale, _of_table(_nibbles(b[:, 8:], 16)))  # 5 + 7 bits and two signs; -32 is a power of two


def _scales_and_minima(b: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the eight groups of Q4_K and Q5_K: 6 bits each, packed into bytes 4 to 15."""
    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = torch.cat([first & 63, third & 15 | first >> 2 & 48], dim=1)
    minimum = torch.cat([second & 63, third >> 4 | second >> 2 & 48], dim=1)
    return _half(b, 0) * scale, _half(b, 2) * minimum


def _less(values_NV: Tensor, minimum_NG: Tensor) -> Tensor:
    """The values less the minimum of their group."""
    return (_grouped(values_NV, minimum_NG.shape[1]) - minimum_NG[:, :, None]).flatten(1)


def _of_table(index: Tensor) -> Tensor:
    return torch.tensor(TABLE_IQ4, device=index.device, dtype=torch.float32)[index.int()]


FORMATS: Mapping[str, Format] = {
    "Q4_0": Format(32, 18, (0,), _q4_0),
    "Q4_1": Format(32, 20, (0, 2), _q4_1),
    "Q5_0": Format(32, 22, (0,), _q5_0),
    "Q5_1": Format(32, 24, (0, 2), _q5_1),
    "Q8_0": Format(32, 34, (0,), _q8_0),
    "Q2_K": Format(256, 84, (80, 82), _q2_k),
    "Q3_K": Format(256, 110, (108,), _q3_k),
    "Q4_K": Format(256, 144, (0, 2), _q4_k),
    "Q5_K": Format(256, 176, (0, 2), _q5_k),
    "Q6_K": Format(256, 210, (208,), _q6_k),
    "IQ4_NL": Format(32, 18, (0,), _iq4_nl),
    "IQ4_XS": Format(256, 136, (0,), _iq4_xs),
}
"""Name in GGUF → format."""


def dequantize(raw: Tensor, kind: str, out: Tensor) -> None:
    """Writes the values of blocks to `out`, rounded to its type.

    Args:
        raw: the blocks, uint8, contiguous.
        kind: the name of their format.
        out: as many values as the blocks have, contiguous.
    """
    one = FORMATS[kind]
    blocks_NB, values_NV = raw.view(-1, one.size), out.view(-1, one.values)
    for start in range(0, len(blocks_NB), _AT_A_TIME):  # the intermediate tensors have several times the size
        part = slice(start, start + _AT_A_TIME)
        values_NV[part].copy_(one.decode(blocks_NB[part]))


_AT_A_TIME = 1 << 16
