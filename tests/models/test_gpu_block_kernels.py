"""The kernels that dequantize blocks give the values that training on a CPU has, bit for bit.

Without a GPU they run in Triton's interpreter, where Triton is installed; otherwise the test is skipped.
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
pytest.importorskip("triton")

from gguf_blocks import assert_same_bits, samples, values_of
from journeyman.models.gpu import block_formats, block_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CUTS = pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter cuts to bfloat16 instead of rounding")
DTYPES = (torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=CUTS))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", block_formats.FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_the_cpu(kind: str, dtype: torch.dtype) -> None:
    for raw in samples(kind).values():
        wanted = values_of(raw, kind, dtype)
        found = torch.full(wanted.shape, 7.0, device=DEVICE, dtype=dtype)
        block_kernels.dequantize(torch.from_numpy(raw).to(DEVICE), kind, found)
        assert_same_bits(found, wanted)


def test_only_its_own_values_are_written() -> None:
    raw = torch.from_numpy(samples("Q4_K")["anything"]).to(DEVICE)
    out = torch.full((len(raw) + 2, raw.shape[1] // 144 * 256), 7.0, device=DEVICE)
    block_kernels.dequantize(raw, "Q4_K", out[1:-1])
    assert (out[[0, -1]] == 7.0).all()
