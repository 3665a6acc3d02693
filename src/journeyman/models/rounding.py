"""Between which values the originals of stored numbers lie.

A format of numbers rounds: each number is stored as the nearest one of a grid, which for GGUF's blocks depends on the
scales of the block. So what is stored tells an interval, and two files can hold the same base only if their intervals
overlap. Sources: ggml-org/llama.cpp, ggml/src/ggml-quants.c and ggml-common.h. Its quantizers choose the scales freely,
also by an importance matrix, but the integers last: as the nearest ones for the scales that they store. The exceptions
are in `intervals`. Of 220 million numbers, with light and heavy tails, large and small, quantized by llama.cpp in every
format here with and without importance matrices, none lies outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

Values = NDArray[np.float32]
_PLAIN = {"F32": (0, 0), "F16": (11, -14), "BF16": (8, -126)}
"""Format → bits of a number's significand, with the leading one, and the exponent of the least normal number. What is
stored in F32 was not rounded."""


@dataclass(frozen=True)
class Intervals:
    """For each number, what its original is at least and at most; infinite where the format cuts."""

    low: Values
    high: Values


@dataclass(frozen=True)
class _Block:
    """Where a format keeps the integers of a block.

    Attributes:
        places: (from, to, what these bytes are in a block of ones), in bytes; in a block of zeros, they are 0.
        levels: how many values there are.
        least: the level that integers of 0 stand for.
        unrounded: the integers are those of the scale before it was rounded to half precision.
    """

    places: tuple[tuple[int, int, int], ...]
    levels: int
    least: int = 0
    unrounded: bool = False


_BLOCKS: Mapping[str, _Block] = {
    "Q4_0": _Block(((2, 18, 0x11),), 16, unrounded=True),
    "Q4_1": _Block(((4, 20, 0x11),), 16, unrounded=True),
    "Q5_0": _Block(((2, 6, 0), (6, 22, 0x11)), 32, unrounded=True),
    "Q5_1": _Block(((4, 8, 0), (8, 24, 0x11)), 32, unrounded=True),
    "Q8_0": _Block(((2, 34, 1),), 256, least=128, unrounded=True),
    "Q2_K": _Block(((16, 80, 0x55),), 4),
    "Q3_K": _Block(((0, 32, 0), (32, 96, 0x55)), 8),
    "Q4_K": _Block(((16, 144, 0x11),), 16),
    "Q5_K": _Block(((16, 48, 0), (48, 176, 0x11)), 32),
    "Q6_K": _Block(((0, 128, 0x11), (128, 192, 0)), 64),
}
"""Formats whose levels are evenly spaced."""
_TABLES = {"IQ4_NL": (2, 18), "IQ4_XS": (8, 136), "MXFP4": (1, 17), "NVFP4": (4, 36)}
"""Formats with a table of 16 levels → where a block keeps the 4-bit indices."""
_UNROUNDED = ("IQ4_NL", "IQ4_XS")
_BY_IMPORTANCE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")
"""With an importance matrix, their integers are the nearest ones for another scale than the one that is stored."""


def plain_intervals(values: Values, kind: str) -> Intervals:
    """Of numbers that are stored as they are, in F32, F16 or BF16."""
    bits, least = _PLAIN[kind]
    exponent = np.where(values == 0, least, np.maximum(np.frexp(values)[1] - 1, least))
    half = np.ldexp(np.float32(0.5 if bits else 0), exponent - bits + 1).astype(np.float32)
    return Intervals(values - half, values + half)


def intervals(raw: NDArray[np.uint8], kind: GGMLQuantizationType, *, by_importance: bool) -> Intervals | None:
    """Of rows of blocks (rows, bytes); None if the format does not round to the nearest of a grid.

    Args:
        by_importance: an importance matrix was used.
    """
    if kind.name in _PLAIN:
        return plain_intervals(dequantize(raw, kind), kind.name)
    if kind.name in _TABLES:
        return _of_table(raw, kind)
    if kind.name not in _BLOCKS or (by_importance and kind.name in _BY_IMPORTANCE):
        return None
    block, values = _BLOCKS[kind.name], dequantize(raw, kind)
    zero = _filled(raw, kind, block.places, 0)
    step = _filled(raw, kind, block.places, 1) - zero
    first = zero - block.least * step
    last = first + (block.levels - 1) * step
    half = np.abs(step) / 2
    slack = _slack(np.abs(step))
    if block.unrounded:
        slack += _rounding_of_scale(raw, kind) * (np.abs(values) + np.abs(zero) + np.abs(step))
    # At both ends, the original may lie beyond the last level; in a block with a scale of 0, anywhere.
    at_low, at_high = values <= np.minimum(first, last) + half, values >= np.maximum(first, last) - half
    return Intervals(np.where(at_low, -np.inf, values - half - slack), np.where(at_high, np.inf, values + half + slack))


def _of_table(raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> Intervals:
    values, (start, stop) = dequantize(raw, kind), _TABLES[kind.name]
    levels = np.sort(np.stack([_filled(raw, kind, ((start, stop, 0x11),), index) for index in range(16)]), axis=0)
    between = (levels[1:] + levels[:-1]) / 2
    ends = np.full((1, *values.shape), np.inf, np.float32)
    bounds = np.concatenate([-ends, between, ends])
    below, up_to = (levels < values).sum(0), (levels <= values).sum(0)
    low, high = (np.take_along_axis(bounds, one[None], 0)[0] for one in (below, up_to))
    spacing = (levels[-1] - levels[0]) / 15
    slack = _slack(spacing)
    if kind.name in _UNROUNDED:
        slack += _rounding_of_scale(raw, kind) * (np.abs(values) + spacing)
    return Intervals(low - slack, high + slack)


def _slack(step: Values) -> Values:
    """What the quantizer's own arithmetic can add."""
    # Files are converted through half precision, which cannot tell smaller numbers apart.
    return np.asarray(step / 1000 + 6e-8, np.float32)


def _rounding_of_scale(raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> Values:
    """For each number, the relative error of a scale that was rounded to half precision after the integers were chosen,
    times two; blocks begin with their scale."""
    size, block_bytes = GGML_QUANT_SIZES[kind]
    scale = np.abs(raw.reshape(len(raw), -1, block_bytes)[:, :, :2].copy().view("<f2")[..., 0].astype(np.float32))
    error = np.maximum(2.0**-11, 2.0**-25 / np.maximum(scale, 2.0**-24))
    return np.repeat(2 * error.astype(np.float32), size, axis=1)


def _filled(
    raw: NDArray[np.uint8], kind: GGMLQuantizationType, places: tuple[tuple[int, int, int], ...], index: int
) -> Values:
    """The values if all integers had this value."""
    blocks = raw.reshape(len(raw), -1, GGML_QUANT_SIZES[kind][1]).copy()
    for start, stop, ones in places:
        blocks[:, :, start:stop] = ones * index
    return np.asarray(dequantize(blocks.reshape(len(raw), -1), kind), np.float32)
