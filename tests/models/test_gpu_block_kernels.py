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
from journeyman.models.gpu import block_formats, block_kernels, operations
from journeyman.models.gpu.blocks import BlockRows, Blocks, Scratch
from journeyman.models.loss import label_loss

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


def test_the_loss_with_a_head_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces of labels, and of the head's rows."""
    monkeypatch.setattr(operations, "loss_rows", lambda vocab: 4)
    raw = torch.from_numpy(samples("Q6_K")["a random matrix"]).to(DEVICE)
    rows = BlockRows(raw.repeat(10, 1), "Q6_K")
    head = Blocks([rows], Scratch(torch.float32, torch.device(DEVICE), most=128 * rows.shape[1]))
    assert len(list(head.pieces())) == 3
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, rows.shape[1], generator=generator).to(DEVICE).requires_grad_()
    labels = torch.tensor([0, 329, 127, 128, 17, 17], device=DEVICE)
    weights = torch.rand(6, generator=generator).to(DEVICE)
    wanted = label_loss(hidden, head.whole(), labels, weights, 30.0)
    wanted.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    wanted_slope, hidden.grad = hidden.grad, None
    found = operations._LabelLoss.apply(hidden, head, labels, weights, 30.0)  # type: ignore[no-untyped-call]
    found.backward()
    assert torch.allclose(found, wanted, rtol=1e-5)
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad, wanted_slope, rtol=1e-4, atol=1e-5)
