"""Causal attention in blocks of queries, each with the keys that it can reach, and its backward pass.

A block attends to the keys up to its own end. With n blocks, the products are (n + 1) / 2n of the full square; with a
sliding window, a block begins at the first key that its first query reaches. Queries may continue a prefix that several
segments share; its keys precede their own. Products can be capped: x becomes c · tanh(x / c) (Gemma 2). A head can have
a sink: one more product in the softmax, with a key that has no value, so that the weights add up to less than one.

The weights are kept for the backward pass or, to save memory, recomputed there.

Shape letters: B batch (key/value heads times segments), G query heads per key/value head, L length, E head dimension,
Q queries of a block, K key/value heads, P prefix, R = G · Q rows of a block, N keys that a block reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MOST_BLOCKS, _SHORTEST_BLOCK, _LONGEST_BLOCK = 8, 64, 256


def attend_in_blocks(
    q_BGLE: Tensor,
    k_BLE: Tensor,
    v_BLE: Tensor,
    prefix: tuple[Tensor, Tensor] | None = None,
    *,
    window: int | None = None,
    cap: float | None = None,
    sinks_BG: Tensor | None = None,
    keep: bool = True,
) -> Tensor:
    """The mixed values (B, G, L, E).

    Args:
        q_BGLE: queries, already scaled.
        prefix: keys and values (K, P, E) of the tokens before the segments; in the batch, the segments of a key/value
            head are adjacent.
        window: a query reaches its own key and the `window` - 1 keys before it; None: all before it.
        cap: of the products; None: not capped.
        sinks_BG: the products of the queries with the sinks' keys; they get no gradient.
        keep: keep the weights for the backward pass; those of capped products are always recomputed.
    """
    row = q_BGLE.shape[2] + (0 if prefix is None else prefix[0].shape[1])
    rules = _Rules(min(window or row, row), cap, keep and cap is None, sinks_BG)
    out: Tensor = _Blocks.apply(rules, q_BGLE, k_BLE, v_BLE, *(prefix or (None, None)))  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True)
class _Rules:
    window: int
    cap: float | None
    keep: bool
    sinks_BG: Tensor | None = None


@dataclass(frozen=True)
class _Block:
    """Queries `start` to `end` of a segment, and keys `first` to `end`: negative ones are the last of the prefix."""

    start: int
    end: int
    first: int

    @property
    def own(self) -> slice:
        """The keys in the segment."""
        return slice(max(self.first, 0), self.end)

    @property
    def prefix_keys(self) -> int:
        return max(-self.first, 0)

    def before(self, of_KPE: Tensor | None) -> Tensor | None:
        """The keys or values of the prefix that the block reaches."""
        return of_KPE[:, of_KPE.shape[1] - self.prefix_keys :] if of_KPE is not None and self.prefix_keys else None


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rules: _Rules,
        q_BGLE: Tensor,
        k_BLE: Tensor,
        v_BLE: Tensor,
        k_KPE: Tensor | None,
        v_KPE: Tensor | None,
    ) -> Tensor:
        out_BGLE = torch.empty_like(q_BGLE)
        kept = []
        for block in _blocks(q_BGLE.shape[2], k_KPE, rules):
            q = q_BGLE[:, :, block.start : block.end]
            weights, _ = _weights(block, rules, q, k_BLE, k_KPE)
            mixed = torch.bmm(weights[..., block.prefix_keys :], v_BLE[:, block.own])
            before = block.before(v_KPE)
            if before is not None:
                mixed += _by_head(weights[..., : block.prefix_keys], before).view_as(mixed)
            out_BGLE[:, :, block.start : block.end] = mixed.view_as(q)
            if rules.keep:
                kept.append(weights)
            del weights  # before those of the next block are computed
        ctx.save_for_backward(q_BGLE, k_BLE, v_BLE, k_KPE, v_KPE, *kept)
        ctx.rules = rules
        return out_BGLE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g_BGLE,), rules = gradients, ctx.rules
        q_BGLE, k_BLE, v_BLE, k_KPE, v_KPE, *kept = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q_BGLE), torch.zeros_like(k_BLE), torch.zeros_like(v_BLE)
        grad_prefix = None if k_KPE is None else [torch.zeros_like(k_KPE), torch.zeros_like(v_KPE)]
        for number, block in enumerate(_blocks(q_BGLE.shape[2], k_KPE, rules)):
            q_BGQE = q_BGLE[:, :, block.start : block.end]
            weights, capped = (kept[number], None) if kept else _weights(block, rules, q_BGQE, k_BLE, k_KPE)
            g, q = g_BGLE[:, :, block.start : block.end].flatten(1, 2), q_BGQE.flatten(1, 2)
            grad_weights = _with_prefix(torch.bmm(g, v_BLE[:, block.own].transpose(1, 2)), g, block.before(v_KPE))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            if capped is not None:
                grad_scores *= capped.square_().neg_().add_(1)
            own, count = grad_scores[..., block.prefix_keys :], block.prefix_keys
            mixed = torch.bmm(own, k_BLE[:, block.own])
            grad_k[:, block.own] += torch.bmm(own.transpose(1, 2), q)
            grad_v[:, block.own] += torch.bmm(weights[..., count:].transpose(1, 2), g)
            before = block.before(k_KPE)
            if before is not None and grad_prefix is not None:
                mixed += _by_head(grad_scores[..., :count], before).view_as(mixed)
                for grad, shares, rows in zip(grad_prefix, (grad_scores, weights), (q, g), strict=True):
                    joined = rows.view(len(before), -1, rows.shape[-1])
                    grad[:, -count:] += torch.bmm(
                        shares[..., :count].reshape(*joined.shape[:2], -1).transpose(1, 2), joined
                    )
            grad_q[:, :, block.start : block.end] = mixed.view_as(q_BGQE)
            del weights, capped, grad_weights, grad_scores, own
        return None, grad_q, grad_k, grad_v, *(grad_prefix or (None, None))


def _weights(
    block: _Block, rules: _Rules, q_BGQE: Tensor, k_BLE: Tensor, k_KPE: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The weights (B, R, N) of a block and, if its products x are capped, tanh(x / cap) in float32."""
    q, queries = q_BGQE.flatten(1, 2), block.end - block.start
    scores = _with_prefix(torch.bmm(q, k_BLE[:, block.own].transpose(1, 2)), q, block.before(k_KPE))
    capped = None
    if rules.cap is not None:
        capped = scores.float().div_(rules.cap).tanh_()
        scores = capped * rules.cap
    of_queries = scores.view(*q_BGQE.shape[:3], -1)
    later = torch.ones(queries, queries, dtype=torch.bool, device=q.device).triu(1)
    of_queries[..., -queries:].masked_fill_(later, float("-inf"))
    past = block.end - rules.window - block.first  # keys that some query of the block no longer reaches
    if past > 0:
        earlier = torch.ones(queries, past, dtype=torch.bool, device=q.device)
        of_queries[..., :past].masked_fill_(earlier.tril(block.start - rules.window - block.first), float("-inf"))
    if rules.sinks_BG is None:
        return scores.softmax(-1).to(q.dtype), capped
    sinks = rules.sinks_BG.to(scores.dtype)[..., None].expand(-1, -1, queries).reshape(*scores.shape[:2], 1)
    return torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1].to(q.dtype), capped


def _with_prefix(own_BRL: Tensor, rows_BRE: Tensor, of_KPE: Tensor | None) -> Tensor:
    """A block's products with the prefix, followed by those with its own segment: (B, R, N)."""
    if of_KPE is None:
        return own_BRL
    joined = rows_BRE.view(len(of_KPE), -1, rows_BRE.shape[-1])
    return torch.cat([torch.bmm(joined, of_KPE.transpose(1, 2)).view(*own_BRL.shape[:2], -1), own_BRL], dim=-1)


def _by_head(shares_BRP: Tensor, of_KPE: Tensor) -> Tensor:
    """One product per head for all segments: (K, B/K · R, E)."""
    return torch.bmm(shares_BRP.reshape(len(of_KPE), -1, of_KPE.shape[1]), of_KPE)


def _blocks(length: int, k_KPE: Tensor | None, rules: _Rules) -> list[_Block]:
    count = max(1, min(_MOST_BLOCKS, length // _SHORTEST_BLOCK))
    size, prefix = min(-(-length // count), _LONGEST_BLOCK), 0 if k_KPE is None else k_KPE.shape[1]
    return [
        _Block(start, min(start + size, length), max(start - rules.window + 1, -prefix))
        for start in range(0, length, size)
    ]
