"""Compares hand-written backward passes with autograd of their formulas, in float64 and float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models import attention
from journeyman.models.attention import AttentionRules, Packing, packed_attention
from journeyman.models.linear import Frozen, LoraPair, project
from journeyman.models.loss import label_loss
from journeyman.models.norm import rms_norm


def _random(*shape: int, seed: int, grad: bool = False) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_(grad)


def _gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


@pytest.mark.parametrize("with_lora", [(True, True, True), (True, False, True), (False, True, False)])
@pytest.mark.parametrize("input_needs_gradient", [True, False])
def test_projections_that_share_an_input(with_lora: tuple[bool, ...], input_needs_gradient: bool) -> None:
    x = _random(7, 12, seed=0, grad=input_needs_gradient)
    widths, rank = (12, 4, 8), 3
    frozen = [Frozen(_random(n, 12, seed=n), _random(n, seed=n + 50) if n == 4 else None) for n in widths]
    pairs = [
        LoraPair(_random(rank, 12, seed=i, grad=True), _random(n, rank, seed=9 + i, grad=True), 1.7) if has else None
        for i, (n, has) in enumerate(zip(widths, with_lora, strict=True))
    ]
    expected = [
        F.linear(x, one.weight_OI, one.bias_O) + (0 if p is None else p.scale * (x @ p.a_RI.T) @ p.b_OR.T)
        for one, p in zip(frozen, pairs, strict=True)
    ]
    found = project(x, frozen, pairs)
    leaves = [t for p in pairs if p is not None for t in (p.a_RI, p.b_OR)] + ([x] if input_needs_gradient else [])
    losses = [sum(((y * y).sum() * (i + 1) for i, y in enumerate(ys)), torch.zeros(())) for ys in (expected, found)]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a)
    for a, b in zip(_gradients(losses[0], *leaves), _gradients(losses[1], *leaves), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [[5], [3, 9, 1], [70, 131], [300, 17, 200]])
def test_attention_by_blocks_equals_attention_of_each_segment(lengths: list[int]) -> None:
    count, heads, kv_heads, size = sum(lengths), 6, 2, 8
    q, k, v = (_random(count, n, size, seed=i, grad=True) for i, n in enumerate((heads, kv_heads, kv_heads)))
    packing = Packing(lengths)
    (field,) = packing.fields
    assert field.on_grid
    found, expected = packed_attention(q, k, v, packing), attention._one_by_one(q, k, v, field, AttentionRules())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = _random(count, heads, size, seed=7)
    ours, theirs = _gradients((found * weight).sum(), q, k, v), _gradients((expected * weight).sum(), q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("on_grid", [True, False])
@pytest.mark.parametrize("shape", [(5, [3, 1], [4]), (130, [70, 131, 9], [200, 3]), (30, [66], [])])
def test_a_shared_prefix_is_as_good_as_one_in_each_row(
    shape: tuple[int, list[int], list[int]], on_grid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with two different prefixes and rows without one, compared with every row computed whole."""
    if not on_grid:
        monkeypatch.setattr(attention, "LONGEST_ON_GRID", 0)
    prefix, following, alone = shape
    lengths = [prefix, *alone, prefix + 1, *following, *following]
    second = 1 + len(alone)
    prefixes = [-1] * (second + 1) + [0] * len(following) + [second] * len(following)
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    q, k, v = (_random(sum(lengths), heads, 8, seed=i, grad=True) for i, heads in enumerate((6, 2, 2)))
    packing = Packing(lengths, prefixes)
    found = packed_attention(q, k, v, packing)
    weight = _random(*found.shape, seed=7)
    pieces = []
    for number, (start, length, before) in enumerate(zip(starts, lengths, prefixes, strict=True)):
        own = torch.arange(start, start + length)
        seen = own if before < 0 else torch.cat([torch.arange(starts[before], starts[before] + lengths[before]), own])
        (whole,) = Packing([len(seen)]).fields
        pieces.append(attention._one_by_one(q[seen], k[seen], v[seen], whole, AttentionRules())[-length:])
        assert packing.position_T[start] == (0 if before < 0 else lengths[before]), number
    expected = torch.cat(pieces)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = _gradients((found * weight).sum(), q, k, v), _gradients((expected * weight).sum(), q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_weighted_loss_equals_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.models.loss.CHUNK", 4)
    hidden, head = _random(11, 6, seed=1, grad=True), _random(30, 6, seed=2) * 5
    labels, weights = torch.arange(11), torch.linspace(0.1, 1, 11)
    expected = (F.cross_entropy(hidden @ head.T, labels, reduction="none") * weights).sum()
    found = label_loss(hidden, head, labels, weights)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(_gradients(3 * found, hidden)[0], _gradients(3 * expected, hidden)[0])


@pytest.mark.parametrize("shape", [(7, 32), (5, 3, 8)])
def test_the_norm_equals_torch_and_its_gradient(shape: tuple[int, ...]) -> None:
    x, weight = _random(*shape, seed=1, grad=True), _random(shape[-1], seed=2)
    given = x.detach().clone()
    found, expected = rms_norm(x, weight, 1e-5), F.rms_norm(x, (shape[-1],), weight, 1e-5)
    torch.testing.assert_close(found, expected)
    g = _random(*shape, seed=3)
    kept = g.clone()
    (ours,), (theirs,) = torch.autograd.grad(found, x, g), torch.autograd.grad(expected, x, g)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(x.detach(), given) and torch.equal(g, kept), "nothing given is changed"
    narrow = rms_norm(x.detach().bfloat16(), weight.bfloat16(), 1e-5)
    assert narrow.dtype == torch.bfloat16
