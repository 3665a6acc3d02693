"""Causal attention of packed segments: each attends to itself and to the prefix that it shares with others.

Short segments use batched matrix products on a padded grid, in blocks of queries that skip later keys: on a CPU,
forward and backward took 11 ms, compared with 60 ms for `scaled_dot_product_attention` (13 segments of 150 tokens, 9
heads of 64, bf16, two Zen 4 cores; benchmarks/log.md). Long segments are computed one by one, because the grid's scores
grow with the square of the length: with `scaled_dot_product_attention` or, if there are sinks, capped products or rows
longer than a window, in blocks that store no scores (models.causal_blocks).

Rows with the same beginning (one system prompt, the same tools) share a prefix: a segment that is computed once. The
rest of each row is a segment whose queries also attend to the prefix. The result is exact, except for the order of
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.causal_blocks import attend_in_blocks

LONGEST_ON_GRID = 1024
"""Tokens of a segment; for longer ones, the grid's scores are not worth their memory."""
LONGEST_WITH_SCORES = 2048
"""Tokens of a row with the beginning that it shares; longer ones use an attention that does not store scores."""


@dataclass(frozen=True)
class AttentionRules:
    """How the weights of attention are computed.

    Attributes:
        scale: multiplies the products of queries and keys; None: E ** -0.5.
        window: a token attends to itself and the `window` - 1 tokens before it in its row; None: to all before it.
        cap: a product x becomes cap · tanh(x / cap) (Gemma 2); None: unchanged.
        sinks_H: for each head, the product of every query with one more key, which has no value (gpt-oss; Xiao et al.,
            2023, arXiv 2309.17453); None: no such key.
    """

    scale: float | None = None
    window: int | None = None
    cap: float | None = None
    sinks_H: Tensor | None = None

    def fit_fused(self, row: int) -> bool:
        """Whether `scaled_dot_product_attention` computes what a row of this many tokens needs."""
        return self.cap is None and self.sinks_H is None and (self.window is None or self.window >= row)


class Packing:
    """The layout of segments in a pack.

    Attributes:
        position_T: the position of each token in its row; a segment with a prefix starts where the prefix ends.
        fields: groups that are computed together: the segments without a prefix, and those of each prefix.

    Args:
        lengths: tokens of each segment, in order.
        prefixes: for each segment, the number of the segment that it continues, or a negative number. Segments with
            the same number are adjacent, and those without a prefix come before those that continue them. Segments
            with different negative numbers are computed apart.
    """

    def __init__(
        self, lengths: Sequence[int], prefixes: Sequence[int] | None = None, device: torch.device | None = None
    ) -> None:
        prefixes = [-1] * len(lengths) if prefixes is None else prefixes
        begins = [lengths[prefix] if prefix >= 0 else 0 for prefix in prefixes]
        self.position_T = torch.cat(
            [torch.arange(begin, begin + n, device=device) for begin, n in zip(begins, lengths, strict=True)]
        )
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        self.fields = []
        for number, prefix in enumerate(prefixes):
            if number == 0 or prefix != prefixes[number - 1]:
                of_field = [n for n, other in zip(lengths, prefixes, strict=True) if other == prefix]
                place = (starts[prefix], lengths[prefix]) if prefix >= 0 else None
                self.fields.append(_Field(of_field, place, device))
        assert sum(len(field.lengths) for field in self.fields) == len(lengths), "segments of a prefix must be adjacent"


class _Field:
    """Segments that are computed together, padded to the longest on a grid of S segments times L positions.

    `prefix` is the start and length of the tokens that all of them continue.
    """

    def __init__(self, lengths: Sequence[int], prefix: tuple[int, int] | None, device: torch.device | None) -> None:
        self.lengths, self.prefix = list(lengths), prefix
        self.tokens, self.longest = sum(lengths), max(lengths)
        starts_S = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        offset_L = torch.arange(self.longest, device=device)
        real_SL = offset_L[None] < torch.tensor(self.lengths, device=device)[:, None]
        # Padded cells may point anywhere: no real query attends to a later key, and padded queries are discarded.
        self.cells = (starts_S[:, None] + offset_L[None]).where(real_SL, 0).flatten()
        self.real_cells_T = real_SL.flatten().nonzero()[:, 0]

    @property
    def is_full(self) -> bool:
        """Whether no cell is padded."""
        return self.tokens == len(self.lengths) * self.longest

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row: prefix and segment."""
        return self.longest + (self.prefix[1] if self.prefix else 0)

    @property
    def on_grid(self) -> bool:
        return self.longest <= LONGEST_ON_GRID and self.row_tokens <= LONGEST_WITH_SCORES


def packed_attention(
    q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Packing, rules: AttentionRules = AttentionRules()
) -> Tensor:
    """Attention output (T, H, E); K key/value heads each serve H/K query heads."""
    tokens = [field.tokens for field in packing.fields]
    parts = zip(packing.fields, *(torch.split(x, tokens) for x in (q_THE, k_TKE, v_TKE)), strict=True)
    mixed = []
    for field, q, k, v in parts:
        attend = _on_grid if field.on_grid else _one_by_one
        if field.prefix is None:
            mixed.append(attend(q, k, v, field, rules))
        else:
            before = slice(field.prefix[0], sum(field.prefix))
            mixed.append(attend(q, k, v, field, rules, k_TKE[before], v_TKE[before]))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _on_grid(
    q_THE: Tensor,
    k_TKE: Tensor,
    v_TKE: Tensor,
    field: _Field,
    rules: AttentionRules,
    k_PKE: Tensor | None = None,
    v_PKE: Tensor | None = None,
) -> Tensor:
    def grid(x: Tensor) -> Tensor:
        cells: Tensor = _ToGrid.apply(x, field)  # type: ignore[no-untyped-call]
        return cells.view(len(field.lengths), field.longest, *x.shape[1:])

    mixed = _in_blocks(grid(q_THE), grid(k_TKE), grid(v_TKE), rules, k_PKE, v_PKE, keep=True)
    out: Tensor = _FromGrid.apply(mixed.flatten(0, 1), field)  # type: ignore[no-untyped-call]
    return out


class _ToGrid(torch.autograd.Function):
    """Tokens to cells. No real query attends to a padded key, so padded cells have no gradient."""

    @staticmethod
    def forward(ctx: Any, x_T: Tensor, field: _Field) -> Tensor:
        ctx.field = field
        return x_T if field.is_full else x_T.index_select(0, field.cells)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _tokens_of(gradients[0], ctx.field), None


class _FromGrid(torch.autograd.Function):
    """Cells to tokens; padded queries get a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, field: _Field) -> Tensor:
        ctx.field = field
        return _tokens_of(cells, field)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,), field = gradients, ctx.field
        if field.is_full:
            return g, None
        zeros = g.new_zeros(len(field.lengths) * field.longest, *g.shape[1:])
        return zeros.index_copy_(0, field.real_cells_T, g), None


def _tokens_of(cells: Tensor, field: _Field) -> Tensor:
    return cells if field.is_full else cells.index_select(0, field.real_cells_T)


def _one_by_one(
    q_THE: Tensor,
    k_TKE: Tensor,
    v_TKE: Tensor,
    field: _Field,
    rules: AttentionRules,
    k_PKE: Tensor | None = None,
    v_PKE: Tensor | None = None,
) -> Tensor:
    parts = zip(*(torch.split(x, field.lengths) for x in (q_THE, k_TKE, v_TKE)), strict=True)
    mixed = []
    for q, k, v in parts:
        row = len(q) + (0 if k_PKE is None else len(k_PKE))
        if not rules.fit_fused(row):
            mixed.append(_in_blocks(q[None], k[None], v[None], rules, k_PKE, v_PKE, keep=False)[0])
            continue
        if k_PKE is not None and v_PKE is not None:
            k, v = torch.cat([k_PKE, k]), torch.cat([v_PKE, v])
        seen = torch.ones(len(q), row, dtype=torch.bool, device=q.device).tril(row - len(q)) if row > len(q) else None
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None],
            attn_mask=seen, is_causal=seen is None, scale=rules.scale, enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        mixed.append(out[0].transpose(0, 1))
    return torch.cat(mixed)


def _in_blocks(
    q_SLHE: Tensor,
    k_SLKE: Tensor,
    v_SLKE: Tensor,
    rules: AttentionRules,
    k_PKE: Tensor | None,
    v_PKE: Tensor | None,
    *,
    keep: bool,
) -> Tensor:
    """Attention of S segments of the same length, of the same type as q."""
    segments, longest, heads, size = q_SLHE.shape
    kv_heads = k_SLKE.shape[2]
    scale = size**-0.5 if rules.scale is None else rules.scale
    # Heads first, so that all queries of a key/value head are adjacent for the product with the prefix.
    q = (q_SLHE * scale).view(segments, longest, kv_heads, -1, size).permute(2, 0, 3, 1, 4)
    q = q.reshape(kv_heads * segments, -1, longest, size)
    k = k_SLKE.permute(2, 0, 1, 3).reshape(kv_heads * segments, longest, size)
    v = v_SLKE.permute(2, 0, 1, 3).reshape(kv_heads * segments, longest, size)
    prefix = None if k_PKE is None or v_PKE is None else (k_PKE.transpose(0, 1), v_PKE.transpose(0, 1))
    sinks = rules.sinks_H
    if sinks is not None:
        sinks = sinks.view(kv_heads, -1).repeat_interleave(segments, 0)
    mixed = attend_in_blocks(q, k, v, prefix, window=rules.window, cap=rules.cap, sinks_BG=sinks, keep=keep)
    mixed = mixed.view(kv_heads, segments, -1, longest, size).permute(1, 3, 0, 2, 4)
    return mixed.reshape(segments, longest, heads, size)
