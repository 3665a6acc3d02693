"""Blocks of GGUF's formats as bytes, to compare ways of dequantizing them bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from numpy.typing import NDArray

from journeyman.config import EMBEDDED
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu.block_formats import FORMATS
from quantized import random_matrix

SCALES = [
    0x0000,
    0x8000,
    0x0001,
    0x8001,
    0x03FF,
    0x0400,
    0x83FF,
    0x3C00,
    0xBC00,
    0x7BFF,
    0xFBFF,
    0x7C00,
    0xFC00,
    0x7E00,
]
"""Half precision: zeros, subnormal numbers, the least and the largest normal ones, ones, infinities, not a number."""


def samples(kind: str) -> dict[str, NDArray[np.uint8]]:
    """Rows of blocks (rows, bytes): every byte random, every special scale, a random matrix, and tensors of a model."""
    rng, (values, size) = np.random.default_rng(len(kind)), GGML_QUANT_SIZES[Kind[kind]]
    anything = rng.integers(0, 256, (37, 5 * size), dtype=np.uint8)
    special = rng.integers(0, 256, (len(SCALES) ** 2, size), dtype=np.uint8)
    for place, at in enumerate(FORMATS[kind].scales_at):
        pattern = np.array(SCALES, np.uint16)[np.arange(len(special)) // len(SCALES) ** place % len(SCALES)]
        special[:, at : at + 2] = pattern.view(np.uint8).reshape(-1, 2)
    found = {
        "anything": anything,
        "special scales": special,
        "a random matrix": random_matrix(rng, 33, 2 * max(values, 128), Kind[kind]).view(np.uint8),
    }
    try:
        from journeyman.models.opening import find_base

        file = GgufFile(find_base(EMBEDDED, Path()))
    except (ImportError, InputError):  # neither the package with the model nor what finds it is needed here
        return found
    for name, info in file.tensors.items():
        if info.kind.name == kind and (name.startswith("blk.0.") or "." not in name.removesuffix(".weight")):
            found[name] = file._raw_rows(info, 0, 64)
    return found


def values_of(raw: NDArray[np.uint8], kind: str, dtype: torch.dtype) -> torch.Tensor:
    """The values as training on a CPU has them."""
    with np.errstate(all="ignore"):
        return torch.from_numpy(dequantize(raw, Kind[kind])).to(dtype)


def assert_same_bits(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """The same bits, except that any two values that are not numbers are the same."""
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    bits = torch.int32 if found.dtype == torch.float32 else torch.int16
    found, wanted = found.cpu(), wanted.cpu()
    assert torch.equal(found.isnan(), wanted.isnan())
    differ = (found.view(bits) != wanted.view(bits)) & ~found.isnan()
    assert not differ.any(), (int(differ.sum()), found[differ][:4], wanted[differ][:4])
