"""Causal attention of packed segments: each attends to itself alone.

Short segments go through plain batched matrix products on a padded grid: on a CPU, forward and backward
took 16 ms where `scaled_dot_product_attention` took 60 (13 segments of 150 tokens, 9 heads of 64, bf16,
two Zen 4 cores; benchmarks/log.md). Long ones go through it one by one, because the grid's score table
grows with the square of the length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

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
    q = q.reshape(segments * kv_heads, group * longest, size)
    k = grid(k_TKE).permute(0, 2, 3, 1).reshape(segments * kv_heads, size, longest)
    v = grid(v_TKE).permute(0, 2, 1, 3).reshape(segments * kv_heads, longest, size)
    later = torch.full((longest, longest), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    scores = torch.bmm(q, k).view(segments * kv_heads, group, longest, longest) + later
    mixed = torch.bmm(scores.softmax(-1).view(segments * kv_heads, group * longest, longest), v)
    mixed = mixed.view(segments, kv_heads, group, longest, size).permute(0, 3, 1, 2, 4)
    return mixed.reshape(segments * longest, heads, size).index_select(0, packing.real_cells_T)


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
