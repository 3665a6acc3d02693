"""Causal attention of packed segments: each attends to itself and to the prefix that it shares with others.

Short segments use batched matrix products on a padded grid, in blocks of queries that skip later keys: on a CPU,
forward and backward took 11 ms, compared with 60 ms for `scaled_dot_product_attention` (13 segments of 150 tokens, 9
heads of 64, bf16, two Zen 4 cores; benchmarks/log.md). Long segments use the latter one by one, because the grid's
scores grow with the square of the length.

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

_MOST_BLOCKS, _SHORTEST_BLOCK = 8, 64
LONGEST_ON_GRID = 1024
"""Tokens of a segment; for longer ones, the grid's scores are not worth their memory."""
_LONGEST_WITH_PREFIX = 2048


@dataclass(frozen=True)
class AttentionRules:
    """How the weights of attention are computed.

    Attributes:
        scale: multiplies the products of queries and keys; None: E ** -0.5.
        window: a token attends to itself and the `window` - 1 tokens before it in its row; None: to all before it.
        cap: a product x becomes cap · tanh(x / cap) (Gemma 2); None: unchanged.
    """

    scale: float | None = None
    window: int | None = None
    cap: float | None = None


class Packing:
    """The layout of segments in a pack.

    Attributes:
        position_T: the position of each token in its row; a segment with a prefix starts where the prefix ends.
        fields: groups that are computed together: first the segments without a prefix, then those of each prefix.

    Args:
        lengths: tokens of each segment, in order.
        prefixes: for each segment, the number of the segment that it continues, or -1. Segments with the same prefix
            are adjacent, after all segments without one.
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

    def on_grid(self, rules: AttentionRules) -> bool:
        if rules.cap is not None or (rules.window is not None and rules.window < self.row_tokens):
            return False
        return self.longest <= LONGEST_ON_GRID and self.row_tokens <= _LONGEST_WITH_PREFIX


def packed_attention(
    q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Packing, rules: AttentionRules = AttentionRules()
) -> Tensor:
    """Attention output (T, H, E); K key/value heads each serve H/K query heads."""
    tokens = [field.tokens for field in packing.fields]
    parts = zip(packing.fields, *(torch.split(x, tokens) for x in (q_THE, k_TKE, v_TKE)), strict=True)
    mixed = []
    for field, q, k, v in parts:
        attend = _on_grid if field.on_grid(rules) else _one_by_one
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
    segments, longest = len(field.lengths), field.longest
    heads, kv_heads, size = q_THE.shape[1], k_TKE.shape[1], q_THE.shape[2]
    group = heads // kv_heads
    scale = size**-0.5 if rules.scale is None else rules.scale

    def grid(x: Tensor) -> Tensor:
        cells: Tensor = _ToGrid.apply(x, field)  # type: ignore[no-untyped-call]
        return cells.view(segments, longest, *x.shape[1:])

    # Heads first, so that all queries of a key/value head are adjacent for the product with the prefix.
    q = grid(q_THE * scale).view(segments, longest, kv_heads, group, size).permute(2, 0, 3, 1, 4)
    q = q.reshape(kv_heads * segments, group, longest, size)
    k = grid(k_TKE).permute(2, 0, 1, 3).reshape(kv_heads * segments, longest, size)
    v = grid(v_TKE).permute(2, 0, 1, 3).reshape(kv_heads * segments, longest, size)
    before = () if k_PKE is None or v_PKE is None else (k_PKE.transpose(0, 1), v_PKE.transpose(0, 1))
    mixed: Tensor = _CausalBlocks.apply(q, k, v, *before)  # type: ignore[no-untyped-call]
    mixed = mixed.view(kv_heads, segments, group, longest, size).permute(1, 3, 0, 2, 4)
    out: Tensor = _FromGrid.apply(mixed.reshape(segments * longest, heads, size), field)  # type: ignore[no-untyped-call]
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


class _CausalBlocks(torch.autograd.Function):
    """Causal attention in blocks of queries, each of which attends to the prefix and the keys up to its own end.

    With n blocks, the products are (n + 1) / 2n of the full square. Shape letters: B batch (key/value heads times
    segments), G query heads per key/value head, L length, E head dimension, Q queries of a block, K key/value heads,
    P prefix.
    """

    @staticmethod
    def forward(
        ctx: Any, q_BGLE: Tensor, k_BLE: Tensor, v_BLE: Tensor, k_KPE: Tensor | None = None, v_KPE: Tensor | None = None
    ) -> Tensor:
        out_BGLE = torch.empty_like(q_BGLE)
        kept = []
        for start, end in _blocks(q_BGLE.shape[2]):
            q = q_BGLE[:, :, start:end].flatten(1, 2)
            block = (*q_BGLE.shape[:2], end - start)
            scores = _with_prefix(torch.bmm(q, k_BLE[:, :end].transpose(1, 2)), q, k_KPE)
            later = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
            scores.view(*block, -1)[..., start - end :].masked_fill_(later, float("-inf"))
            weights = scores.softmax(-1)
            mixed = torch.bmm(weights[..., -end:], v_BLE[:, :end])
            if v_KPE is not None:
                mixed += _by_head(weights[..., :-end], v_KPE).view_as(mixed)
            out_BGLE[:, :, start:end] = mixed.view(*block, -1)
            kept.append(weights)
        ctx.save_for_backward(q_BGLE, k_BLE, v_BLE, k_KPE, v_KPE, *kept)
        return out_BGLE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g_BGLE,) = gradients
        q_BGLE, k_BLE, v_BLE, k_KPE, v_KPE, *kept = ctx.saved_tensors
        grad_q = torch.empty_like(q_BGLE)
        grad_k, grad_v = torch.zeros_like(k_BLE), torch.zeros_like(v_BLE)
        grad_prefix = [] if k_KPE is None else [torch.zeros_like(k_KPE), torch.zeros_like(v_KPE)]
        for (start, end), weights in zip(_blocks(q_BGLE.shape[2]), kept, strict=True):
            g = g_BGLE[:, :, start:end].flatten(1, 2)
            q = q_BGLE[:, :, start:end].flatten(1, 2)
            grad_weights = _with_prefix(torch.bmm(g, v_BLE[:, :end].transpose(1, 2)), g, v_KPE)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            own = grad_scores[..., -end:]
            mixed = torch.bmm(own, k_BLE[:, :end])
            grad_k[:, :end] += torch.bmm(own.transpose(1, 2), q)
            grad_v[:, :end] += torch.bmm(weights[..., -end:].transpose(1, 2), g)
            if k_KPE is not None:
                mixed += _by_head(grad_scores[..., :-end], k_KPE).view_as(mixed)
                for grad, shares, rows in zip(grad_prefix, (grad_scores, weights), (q, g), strict=True):
                    joined = rows.view(len(k_KPE), -1, rows.shape[-1])
                    grad += torch.bmm(shares[..., :-end].reshape(*joined.shape[:2], -1).transpose(1, 2), joined)
            grad_q[:, :, start:end] = mixed.view(*grad_q.shape[:2], end - start, -1)
        return grad_q, grad_k, grad_v, *(grad_prefix or (None, None))


def _with_prefix(own_BRL: Tensor, rows_BRE: Tensor, of_KPE: Tensor | None) -> Tensor:
    """A block's products with the prefix, followed by those with its own segment: (B, R, P + L)."""
    if of_KPE is None:
        return own_BRL
    joined = rows_BRE.view(len(of_KPE), -1, rows_BRE.shape[-1])
    return torch.cat([torch.bmm(joined, of_KPE.transpose(1, 2)).view(*own_BRL.shape[:2], -1), own_BRL], dim=-1)


def _by_head(shares_BRP: Tensor, of_KPE: Tensor) -> Tensor:
    """One product per head for all segments: (K, B/K · R, E)."""
    return torch.bmm(shares_BRP.reshape(len(of_KPE), -1, of_KPE.shape[1]), of_KPE)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    count = max(1, min(_MOST_BLOCKS, length // _SHORTEST_BLOCK))
    size = -(-length // count)
    return [(start, min(start + size, length)) for start in range(0, length, size)]


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
        if k_PKE is not None and v_PKE is not None:
            k, v = torch.cat([k_PKE, k]), torch.cat([v_PKE, v])
        seen = _seen(len(q), len(k), rules.window, q.device)
        q_HTE, k_KTE, v_KTE = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        if rules.cap is not None:
            out = _capped(q_HTE, k_KTE, v_KTE, seen, rules)
        else:
            out = F.scaled_dot_product_attention(
                q_HTE[None], k_KTE[None], v_KTE[None], attn_mask=seen, is_causal=seen is None, scale=rules.scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )[0]  # fmt: skip
        mixed.append(out.transpose(0, 1))
    return torch.cat(mixed)


def _seen(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys each query attends to (queries, keys); None: those of plain causal attention without a prefix."""
    if window is not None and window >= keys:
        window = None
    if window is None and queries == keys:
        return None
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return seen if window is None else seen.triu(keys - queries - window + 1)


def _capped(q_HTE: Tensor, k_KTE: Tensor, v_KTE: Tensor, seen: Tensor | None, rules: AttentionRules) -> Tensor:
    """Attention with capped products. Simple instead of frugal: the scores (H, T, T) exist several times."""
    assert rules.cap is not None
    group = len(q_HTE) // len(k_KTE)
    scale = q_HTE.shape[-1] ** -0.5 if rules.scale is None else rules.scale
    scores = (q_HTE * scale) @ k_KTE.repeat_interleave(group, 0).transpose(1, 2)
    scores = torch.tanh(scores.float() / rules.cap) * rules.cap
    if seen is None:
        seen = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).tril()
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return weights.to(v_KTE.dtype) @ v_KTE.repeat_interleave(group, 0)
