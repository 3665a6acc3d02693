"""The kernels for GPUs compute what the operations for the CPU compute.

On a machine without a GPU they run in Triton's interpreter, where Triton is installed; otherwise the test is skipped.
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
pytest.importorskip("triton")

from journeyman.models.attention import AttentionRules, Packing, packed_attention
from journeyman.models.gpu import attention_kernels, eight_kernels, gate_kernels, kernels
from journeyman.models.gpu.attention import Attention
from journeyman.models.gpu.frozen import _by_rows
from journeyman.models.loss import label_loss
from journeyman.models.norm import rms_norm
from journeyman.models.operations import CpuOperations

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REFERENCE = CpuOperations()


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def _close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5), (found - wanted).abs().max()


@pytest.mark.parametrize("shape", [(5, 1, 32), (3, 4, 8), (2, 1, 100), (4, 3, 64)])
def test_norm(shape: tuple[int, int, int]) -> None:
    x, weight, g = _random(*shape).requires_grad_(), 1 + _random(shape[-1], seed=1), _random(*shape, seed=2)
    wanted = rms_norm(x, weight, 1e-5)
    wanted.backward(g)  # type: ignore[no-untyped-call]
    found = torch.full((*shape[:2], shape[2] + 8), float("nan"), device=DEVICE)
    inverse = kernels.norm_forward(x.detach(), weight, found[..., : shape[2]], 1e-5)
    _close(found[..., : shape[2]], wanted.detach())
    assert x.grad is not None
    _close(kernels.norm_backward(g, x.detach(), weight, inverse), x.grad)


def test_add_norm() -> None:
    x, added, weight = _random(5, 40).requires_grad_(), _random(5, 40, seed=1), 1 + _random(40, seed=2)
    g_total, g_out = _random(5, 40, seed=3), _random(5, 40, seed=4)
    wanted = REFERENCE.add_norm(x, added, weight, 1e-5)
    torch.autograd.backward(wanted, [g_total, g_out])
    total, out, inverse = kernels.add_norm_forward(x.detach(), added, weight, 1e-5)
    _close(total, wanted[0].detach())
    _close(out, wanted[1].detach())
    found = kernels.norm_backward(g_out[:, None], total[:, None], weight, inverse, g_total)
    assert x.grad is not None
    _close(found[:, 0], x.grad)


@pytest.mark.parametrize("rotated", [8, 4])
def test_rotate(rotated: int) -> None:
    wide = _random(5, 3 * 8 + 7)
    x = wide[:, : 3 * 8].view(5, 3, 8)  # rows with something behind them
    angle = _random(5, rotated // 2, seed=1).repeat(1, 2)[:, None]
    cos, sin = angle.cos(), angle.sin()
    found = kernels.rotate(x, cos, sin, back=False)
    _close(found, REFERENCE.rotate(x, cos, sin))
    _close(kernels.rotate(found, cos, sin, back=True), x)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("adapted", [True, False])
def test_gate(activation: str, adapted: bool) -> None:
    """With the low-rank update of gate and up on the way in, and that of down on the way back."""
    tokens, width, ranks, slopes = 19, 150, 5, 3
    raw, low, b = _random(tokens, 2 * width), _random(tokens, ranks, seed=1), _random(2 * width, ranks, seed=2)
    g, slope, a = _random(tokens, width, seed=3), _random(tokens, slopes, seed=4), _random(slopes, width, seed=5)
    both = (raw + low @ b.T if adapted else raw).requires_grad_()
    gate, up = both.chunk(2, dim=1)
    wanted = (torch.nn.functional.silu(gate) if activation == "silu" else _gelu(gate)) * up
    wanted.backward(g + slope @ a if adapted else g)  # type: ignore[no-untyped-call]
    gelu = activation == "gelu"
    found, _ = gate_kernels.gate_forward(raw, *((low, b) if adapted else (None, None)), gelu=gelu, eight=False)
    _close(found, wanted.detach())
    thin = (slope, a, raw, low, b) if adapted else (None, None, raw, None, None)
    found, _ = gate_kernels.gate_backward(g, *thin, gelu=gelu, eight=False)
    assert both.grad is not None
    _close(found, both.grad)


def _gelu(gate: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(gate, approximate="tanh")


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter rounds 124 to 64 instead of 128 in eight bits")
def test_eight_bits_are_those_of_the_reference() -> None:
    x = _random(7, 96) * torch.logspace(-3, 3, 7, device=DEVICE)[:, None]
    values, scales = eight_kernels.quantize(x)
    wanted, wanted_scales = _by_rows(x)
    _close(scales, wanted_scales.T)
    assert ((values.float() - wanted.float()).abs() <= 2**-8 + 0.13 * wanted.float().abs()).all()
    raw = _random(19, 2 * 150)
    made, small = gate_kernels.gate_forward(raw, None, None, gelu=False, eight=True)
    assert small is not None
    assert ((small[0].float() * small[1] - made).abs() <= 0.07 * made.abs() + small[1] * 2**-9).all()
    made, small = gate_kernels.gate_backward(_random(19, 150), None, None, raw, None, None, gelu=False, eight=True)
    assert small is not None
    assert ((small[0].float() * small[1] - made).abs() <= 0.07 * made.abs() + small[1] * 2**-9).all()


@pytest.mark.parametrize("cap", [None, 5.0])
def test_cross_entropy(cap: float | None) -> None:
    hidden, head = _random(6, 16).requires_grad_(), _random(9000, 16, seed=1)
    labels, weights = torch.tensor([0, 8999, 4095, 4096, 17, 17], device=DEVICE), _random(6, seed=2).abs()
    wanted = label_loss(hidden, head, labels, weights, cap)
    wanted.backward()  # type: ignore[no-untyped-call]
    logits = hidden.detach() @ head.T
    losses = kernels.cross_entropy(logits.clone(), labels, weights, cap, slope=False)
    _close(losses.sum(), wanted.detach())
    kernels.cross_entropy(logits, labels, weights, cap, slope=True)
    assert hidden.grad is not None
    _close(logits @ head, hidden.grad)


def test_drop() -> None:
    x, more = _random(40, 300), _random(40, 300, seed=1)
    seed = torch.tensor([7, 8], dtype=torch.int32, device=DEVICE)
    one, other = kernels.drop(x, seed[0], 0.1), kernels.drop(x, seed[1], 0.1)
    kept = one != 0
    _close(one, torch.where(kept, x / 0.9, 0.0))
    assert 0.88 < kept.float().mean() < 0.92
    assert not torch.equal(kept, other != 0)
    assert torch.equal(kernels.drop(x, seed[0], 0.1), one)
    _close(kernels.drop(x, seed[0], 0.1, more), one + more)


@pytest.mark.parametrize("rules", [
    AttentionRules(), AttentionRules(scale=0.3), AttentionRules(window=20), AttentionRules(cap=2.0),
    AttentionRules(window=30, cap=3.0),
])  # fmt: skip
@pytest.mark.parametrize(("lengths", "prefixes"), [
    ([70, 5, 130, 64], [-1, -1, -1, -1]),
    ([40, 33, 9, 70, 66, 3], [-1, -1, -1, 0, 0, 1]),
    ([200, 70, 9], [-1, 0, 0]),
])  # fmt: skip
def test_attention(rules: AttentionRules, lengths: list[int], prefixes: list[int]) -> None:
    total, heads, kv_heads, size = sum(lengths), 4, 2, 16
    wide = _random(total, (heads + 2 * kv_heads) * size).requires_grad_()
    q, k, v = (one.unflatten(1, (-1, size)) for one in wide.split([heads * size, kv_heads * size, kv_heads * size], 1))
    wanted = packed_attention(q, k, v, Packing(lengths, prefixes, torch.device(DEVICE)), rules)
    g = _random(total, heads, size, seed=3)
    wanted.backward(g)  # type: ignore[no-untyped-call]
    made = attention_kernels.blocks_of(lengths, prefixes)
    blocks = attention_kernels.AttentionBlocks(*(torch.tensor(one, dtype=torch.int32, device=DEVICE) for one in made))
    with torch.no_grad():
        out, lse = attention_kernels.attention_forward(q, k, v, blocks, rules)
        _close(out, wanted)
        found = attention_kernels.attention_backward(g, q, k, v, out, lse, blocks, rules)
    assert wide.grad is not None
    _close(torch.cat([one.flatten(1) for one in found], dim=1), wide.grad)


@pytest.mark.parametrize("rules", [AttentionRules(), AttentionRules(scale=0.3), AttentionRules(window=50)])
def test_attention_of_long_rows(rules: AttentionRules) -> None:
    lengths, prefixes, device = [70, 5, 65, 64, 66, 61], [-1, -1, -1, -1, -1, 3], torch.device(DEVICE)
    leaves = [_random(sum(lengths), heads, 16, seed=heads).requires_grad_() for heads in (4, 2, 3)]
    q, k, v = leaves[0], leaves[1], leaves[2][:, :2]
    blocks = attention_kernels.attention_blocks(lengths, prefixes, lambda one: one.to(device), 60)
    assert blocks.long == [(0, 70), (75, 140), (204, 270)] and len(blocks.position_T) == sum(lengths)
    g = _random(sum(lengths), 4, 16, seed=9)
    made = []
    for attend, layout in ((packed_attention, Packing(lengths, prefixes, device)), (Attention.apply, blocks)):
        out = attend(q, k, v, layout, rules)
        made.append((out.detach(), *torch.autograd.grad(out, leaves, g)))
    for wanted, found in zip(*made, strict=True):
        _close(found, wanted)
