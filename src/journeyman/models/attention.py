"""Causal attention of packed segments: each attends to itself alone.

Short segments go through plain batched matrix products on a padded grid, by blocks of queries that see no
later key: on a CPU, forward and backward took 11 ms where `scaled_dot_product_attention` took 60 (13 segments
of 150 tokens, 9 heads of 64, bf16, two Zen 4 cores; benchmarks/log.md). Long ones go through it one by one,
because the grid's score table grows with the square of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_BLOCKS, _SHORTEST_BLOCK = 8, 64
LONGEST_ON_GRID = 1024
"""Tokens; beyond this the score table of the grid costs more memory than it saves time."""


class Packing:
    """How segments lie in one packed row: `lengths`, positions, and the padded grid.

    Shape letters: T tokens of the pack, S segments, L longest segment.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | None = None) -> None:
        self.lengths = list(lengths)
        self.longest = max(lengths)
        self.position_T = torch.cat([torch.arange(n, device=device) for n in lengths])
        starts_S = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        offset_L = torch.arange(self.longest, device=device)
        real_SL = offset_L[None] < torch.tensor(self.lengths, device=device)[:, None]
        # A padded cell may point anywhere: no real query sees a later key, and no padded query is read back.
        self.cells = (starts_S[:, None] + offset_L[None]).where(real_SL, 0).flatten()
        self.real_cells_T = real_SL.flatten().nonzero()[:, 0]

    @property
    def on_grid(self) -> bool:
        return self.longest <= LONGEST_ON_GRID


def packed_attention(q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Packing) -> Tensor:
    """Attention output (T, H, E); K key/value heads each serve H/K query heads."""
    if packing.on_grid:
        return _on_grid(q_THE, k_TKE, v_TKE, packing)
    return _one_by_one(q_THE, k_TKE, v_TKE, packing)


def _on_grid(q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Packing) -> Tensor:
    segments, longest = len(packing.lengths), packing.longest
    heads, kv_heads, size = q_THE.shape[1], k_TKE.shape[1], q_THE.shape[2]
    group = heads // kv_heads

    def grid(x: Tensor) -> Tensor:
        return x.index_select(0, packing.cells).view(segments, longest, *x.shape[1:])

    q = grid(q_THE * size**-0.5).view(segments, longest, kv_heads, group, size).permute(0, 2, 3, 1, 4)
    q = q.reshape(segments * kv_heads, group, longest, size)
    k = grid(k_TKE).permute(0, 2, 1, 3).reshape(segments * kv_heads, longest, size)
    v = grid(v_TKE).permute(0, 2, 1, 3).reshape(segments * kv_heads, longest, size)
    mixed: Tensor = _CausalBlocks.apply(q, k, v)  # type: ignore[no-untyped-call]
    mixed = mixed.view(segments, kv_heads, group, longest, size).permute(0, 3, 1, 2, 4)
    return mixed.reshape(segments * longest, heads, size).index_select(0, packing.real_cells_T)


class _CausalBlocks(torch.autograd.Function):
    """Causal attention by blocks of queries, each against the keys up to its own end and no further.

    With n blocks the products are (n + 1) / 2n of the full square's. Shape letters: B batch (segments times
    key/value heads), G query heads of each, L length, E head dimension, Q queries of a block, P keys before its end.
    """

    @staticmethod
    def forward(ctx: Any, q_BGLE: Tensor, k_BLE: Tensor, v_BLE: Tensor) -> Tensor:
        out_BGLE = torch.empty_like(q_BGLE)
        kept = []
        for start, end in _blocks(q_BGLE.shape[2]):
            q = q_BGLE[:, :, start:end].flatten(1, 2)
            block = (*q_BGLE.shape[:2], end - start)
            scores = torch.bmm(q, k_BLE[:, :end].transpose(1, 2)).view(*block, end)  # B G Q P
            later = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
            scores[..., start:].masked_fill_(later, float("-inf"))
            weights = scores.softmax(-1)
            out_BGLE[:, :, start:end] = torch.bmm(weights.flatten(1, 2), v_BLE[:, :end]).view(*block, -1)
            kept.append(weights)
        ctx.save_for_backward(q_BGLE, k_BLE, v_BLE, *kept)
        return out_BGLE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g_BGLE,) = gradients
        q_BGLE, k_BLE, v_BLE, *kept = ctx.saved_tensors
        grad_q = torch.empty_like(q_BGLE)
        grad_k, grad_v = torch.zeros_like(k_BLE), torch.zeros_like(v_BLE)
        for (start, end), weights in zip(_blocks(q_BGLE.shape[2]), kept, strict=True):
            g = g_BGLE[:, :, start:end].flatten(1, 2)
            q = q_BGLE[:, :, start:end].flatten(1, 2)
            grad_weights = torch.bmm(g, v_BLE[:, :end].transpose(1, 2)).view_as(weights)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).flatten(1, 2)
            grad_q[:, :, start:end] = torch.bmm(grad_scores, k_BLE[:, :end]).view(*weights.shape[:3], -1)
            grad_k[:, :end] += torch.bmm(grad_scores.transpose(1, 2), q)
            grad_v[:, :end] += torch.bmm(weights.flatten(1, 2).transpose(1, 2), g)
        return grad_q, grad_k, grad_v


def _blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    count = max(1, min(_MOST_BLOCKS, length // _SHORTEST_BLOCK))
    size = -(-length // count)
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _one_by_one(q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Packing) -> Tensor:
    parts = zip(*(torch.split(x, packing.lengths) for x in (q_THE, k_TKE, v_TKE)), strict=True)
    mixed = [
        F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            is_causal=True,
            enable_gqa=q.shape[1] != k.shape[1],
        )[0].transpose(0, 1)
        for q, k, v in parts
    ]
    return torch.cat(mixed)
