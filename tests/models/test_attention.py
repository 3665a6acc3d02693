"""Attention with windows, capped products, sinks and shared prefixes, compared with its formula, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from journeyman.models import attention, causal_blocks
from journeyman.models.attention import AttentionRules, Packing, packed_attention

HEADS, KV_HEADS, SIZE = 6, 2, 8
SINKS = torch.tensor([-3.0, 0.0, 1.0, 2.0, 5.0, 30.0])
RULES = {
    "plain": AttentionRules(),
    "scaled": AttentionRules(scale=0.7),
    "window": AttentionRules(window=24),
    "window of one": AttentionRules(window=1),
    "wide window": AttentionRules(window=180),
    "capped": AttentionRules(cap=2.0),
    "capped, with a window and a scale": AttentionRules(scale=0.7, window=24, cap=2.0),
    "sinks": AttentionRules(sinks_H=SINKS),
    "sinks, with a window and a scale": AttentionRules(scale=0.7, window=24, sinks_H=SINKS),
    "all at once": AttentionRules(scale=0.7, window=24, cap=2.0, sinks_H=SINKS),
}
SHAPES: dict[str, tuple[list[int], list[int]]] = {  # lengths of segments, and their prefixes
    "one row": ([200], [-1]),
    "rows": ([300, 17, 1, 200], [-1] * 4),
    "long rows": ([700, 30], [-1] * 2),
    "prefixes": ([130, 90, 131, 70, 131, 200, 3], [-1, -1, -1, 0, 0, 2, 2]),
    "a prefix out of reach": ([30, 400, 5], [-1, 0, 0]),
}


def _formula(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], prefixes: Sequence[int], rules: AttentionRules
) -> Tensor:
    """Every row with its prefix, by the definition."""
    starts = list(itertools.accumulate(lengths, initial=0))
    pieces = []
    for start, length, prefix in zip(starts, lengths, prefixes, strict=False):
        own = torch.arange(start, start + length)
        before = torch.arange(starts[prefix], starts[prefix] + lengths[prefix]) if prefix >= 0 else own[:0]
        keys = torch.cat([before, own])
        place_Q, place_N = torch.arange(len(before), len(keys))[:, None], torch.arange(len(keys))
        distance = place_Q - place_N
        seen = (distance >= 0) & (distance < (rules.window or len(keys)))
        group = HEADS // KV_HEADS
        products = q[own].transpose(0, 1) @ k[keys].repeat_interleave(group, 1).permute(1, 2, 0)
        products = products * (SIZE**-0.5 if rules.scale is None else rules.scale)
        if rules.cap is not None:
            products = rules.cap * torch.tanh(products / rules.cap)
        products = products.masked_fill(~seen, float("-inf"))
        if rules.sinks_H is not None:
            products = torch.cat([products, rules.sinks_H[:, None, None].expand(-1, length, 1)], dim=-1)
        weights = products.softmax(-1)[..., : len(keys)]
        pieces.append((weights @ v[keys].repeat_interleave(group, 1).transpose(0, 1)).transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("on_grid", [True, False])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_the_formula(
    shape: str, rules: str, on_grid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_grid:
        monkeypatch.setattr(attention, "LONGEST_ON_GRID", 0)
    lengths, prefixes = SHAPES[shape]
    generator = torch.Generator().manual_seed(len(shape))
    q, k, v = (
        torch.randn(sum(lengths), heads, SIZE, generator=generator).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    found = packed_attention(q, k, v, Packing(lengths, prefixes), RULES[rules])
    expected = _formula(q, k, v, lengths, prefixes, RULES[rules])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(found.shape, generator=generator)
    ours, theirs = (torch.autograd.grad((one * weight).sum(), (q, k, v)) for one in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 24, 400])
@pytest.mark.parametrize("prefix", [0, 50, 3000])
def test_blocks_reach_exactly_the_keys_that_their_queries_attend_to(window: int | None, prefix: int) -> None:
    for length in (1, 63, 64, 129, 550, 1024, 5000):
        row = length + prefix
        rules = causal_blocks._Rules(min(window or row, row), None, True)
        keys = torch.zeros(1, prefix, 1) if prefix else None
        blocks = causal_blocks._blocks(length, keys, rules)
        assert [place for one in blocks for place in range(one.start, one.end)] == list(range(length))
        for one in blocks:
            assert one.first == max(-prefix, one.start - rules.window + 1)
            assert one.end - one.start <= 256
            before = one.before(keys)
            assert (0 if before is None else before.shape[1]) + one.own.stop - one.own.start == one.end - one.first


@pytest.mark.parametrize("rules", ["window", "capped", "sinks"])
def test_capped_products_and_long_rows_keep_no_weights(rules: str) -> None:
    length, kept = 1200, []
    q, k, v = (torch.randn(length, heads, SIZE, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS))

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        packed_attention(q, k, v, Packing([length]), RULES[rules])
    assert sum(kept) <= 4 * length * HEADS * SIZE
