"""Blocks dequantized in torch have the values that training on a CPU has, bit for bit."""

from __future__ import annotations

import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from gguf_blocks import assert_same_bits, samples, values_of
from journeyman.models.gpu import block_formats

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("kind", block_formats.FORMATS)
def test_values_are_those_of_the_cpu(kind: str) -> None:
    one = block_formats.FORMATS[kind]
    assert (one.values, one.size) == GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    for name, raw in samples(kind).items():
        for dtype in DTYPES:
            wanted = values_of(raw, kind, dtype)
            found = torch.empty_like(wanted)
            block_formats.dequantize(torch.from_numpy(raw), kind, found)
            assert wanted.any(), name
            assert_same_bits(found, wanted)


@pytest.mark.parametrize("kind", block_formats.FORMATS)
def test_products_are_exact(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision, where everything is exact, and rounded once: the order of operations cannot matter."""
    one = block_formats.FORMATS[kind]
    raw = torch.from_numpy(samples(kind)["anything"]).view(-1, one.size)
    single = one.decode(raw)
    half = block_formats._half
    monkeypatch.setattr(block_formats, "_half", lambda blocks, at: half(blocks, at).double())
    double = one.decode(raw)
    assert double.dtype == torch.float64
    finite = single.isfinite()
    assert torch.equal(double.float()[finite], single[finite])
