"""Random matrices in any block format of GGUF: finite, centred, with a standard deviation of 1/sqrt(columns)."""

from __future__ import annotations

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

PLAIN = (Kind.F32, Kind.F16, Kind.BF16)
MADE_BY_GGUF = (
    Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.TQ1_0, Kind.TQ2_0, Kind.MXFP4,
)  # fmt: skip
SCALE_AT = {
    Kind.Q2_K: (80, 82), Kind.Q3_K: (108, None), Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208, None),
    Kind.IQ2_XXS: (0, None), Kind.IQ2_XS: (0, None), Kind.IQ2_S: (0, None), Kind.IQ3_XXS: (0, None),
    Kind.IQ3_S: (0, None), Kind.IQ1_S: (0, None), Kind.IQ4_NL: (0, None), Kind.IQ4_XS: (0, None),
}  # fmt: skip
"""Format → where a block keeps the half-precision scale of its values, and that of its minima where it has one."""
KINDS = (*PLAIN, *MADE_BY_GGUF, *SCALE_AT)


def random_matrix(rng: np.random.Generator, rows: int, columns: int, kind: Kind) -> NDArray[np.generic]:
    """The matrix as stored in the file: blocks of bytes, or plain values if the format has no blocks."""
    wanted = columns**-0.5
    if kind in PLAIN or kind in MADE_BY_GGUF:
        values = (rng.standard_normal((rows, columns)) * wanted).astype(np.float32)
        return values if kind == Kind.F32 else values.astype(np.float16) if kind == Kind.F16 else quantize(values, kind)
    scale_at, minimum_at = SCALE_AT[kind]
    block, size = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    sample = raw[:16].copy()

    def values_of(scale: float, minimum: float) -> NDArray[np.float32]:
        _set_half(sample, scale_at, scale)
        if minimum_at is not None:
            _set_half(sample, minimum_at, minimum)
        return dequantize(sample.reshape(len(sample), -1), kind)

    alone = values_of(1.0, 0.0)
    balance = -alone.mean() / values_of(0.0, 1.0).mean() if minimum_at is not None else 0.0
    scale = wanted / values_of(1.0, balance).std()
    _set_half(raw, scale_at, scale)
    if minimum_at is not None:
        _set_half(raw, minimum_at, scale * balance)
    return raw.reshape(rows, -1)


def _set_half(raw: NDArray[np.uint8], at: int, value: float) -> None:
    raw[:, :, at : at + 2] = np.array([value], np.float16).view(np.uint8)
