"""Frozen linear layers that share an input, with their low-rank updates, as one operation.

q, k and v (and gate and up) read the same x, so their A matrices are multiplied at once, and x gets one gradient
instead of two for each layer. The update is added inside the product (addmm), and only x and x·Aᵀ are kept for the
backward pass. For each layer i (Hu et al., 2021, arXiv 2106.09685):

    y_i = x W_iᵀ + b_i + s (x A_iᵀ) B_iᵀ
    dx = Σ g_i W_i + (s g_i B_i) A_i        dA_i = (s g_i B_i)ᵀ x        dB_i = s g_iᵀ (x A_iᵀ)

With dropout, each layer's A reads x with different elements dropped, and s is divided by the share that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Dropout:
    """Which elements are dropped. It depends only on the seed, so a recomputed layer drops the same ones."""

    share: float
    seed: int

    def mask(self, shape: torch.Size) -> Tensor:
        """True for elements that are kept. With 16 random bits per element, shares are rounded to 1/65,536."""
        words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64)
        words.random_(-(2**63), None, generator=torch.Generator().manual_seed(self.seed))
        return (words.view(torch.int16)[: shape.numel()] >= self._struck - 32768).view(shape)

    @property
    def _struck(self) -> int:
        return round(self.share * 65536)

    @property
    def stays(self) -> float:
        return 1 - self._struck / 65536


@dataclass
class LoraPair:
    """A low-rank update of one linear layer: y += scale · (x Aᵀ) Bᵀ."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    dropout: Dropout | None = None

    @property
    def factor(self) -> float:
        """The scale, corrected for dropout."""
        return self.scale if self.dropout is None else self.scale / self.dropout.stays


@dataclass
class Frozen:
    """The frozen part of a linear layer."""

    weight_OI: Tensor
    bias_O: Tensor | None


def project(x_TI: Tensor, layers: Sequence[Frozen], pairs: Sequence[LoraPair | None]) -> list[Tensor]:
    """The outputs of layers that read the same x, each with its update if it has one."""
    if not any(pairs):
        return [F.linear(x_TI, one.weight_OI, one.bias_O) for one in layers]
    updates = [tensor for pair in pairs if pair is not None for tensor in (pair.a_RI, pair.b_OR)]
    made: tuple[Tensor, ...] = _Project.apply(x_TI, layers, pairs, *updates)  # type: ignore[no-untyped-call]
    return list(made)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, layers: Sequence[Frozen], pairs: Sequence[LoraPair | None], *updates: Tensor
    ) -> tuple[Tensor, ...]:
        kind, present = x_TI.dtype, [pair for pair in pairs if pair is not None]
        a_RI = torch.cat([pair.a_RI for pair in present]).to(kind)
        masks = [pair.dropout.mask(x_TI.shape) for pair in present if pair.dropout is not None]
        if masks:
            parts = torch.split(a_RI, [len(pair.a_RI) for pair in present])
            low_TR = torch.cat([(x_TI * mask) @ part.T for mask, part in zip(masks, parts, strict=True)], dim=1)
        else:
            low_TR = x_TI @ a_RI.T
        b_OR = [(pair.b_OR * pair.factor).to(kind) for pair in present]
        outs, start, left = [], 0, iter(b_OR)
        for layer, pair in zip(layers, pairs, strict=True):
            y_TO = F.linear(x_TI, layer.weight_OI, layer.bias_O)
            if pair is not None:
                rank = len(pair.a_RI)
                y_TO.addmm_(low_TR[:, start : start + rank], next(left).T)
                start += rank
            outs.append(y_TO)
        ctx.save_for_backward(x_TI, low_TR, a_RI, *b_OR, *masks)
        ctx.layers, ctx.pairs = layers, pairs
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x_TI, low_TR, a_RI, *more = ctx.saved_tensors
        present = sum(pair is not None for pair in ctx.pairs)
        left, masks = iter(more[:present]), more[present:]
        grad_low_TR = torch.empty_like(low_TR)
        grad_b: list[Tensor] = []
        grad_x = None
        start = 0
        for layer, pair, g_TO in zip(ctx.layers, ctx.pairs, gradients, strict=True):
            if ctx.needs_input_grad[0]:
                grad_x = g_TO @ layer.weight_OI if grad_x is None else grad_x.addmm_(g_TO, layer.weight_OI)
            if pair is not None:
                part = slice(start, start + len(pair.a_RI))
                torch.mm(g_TO, next(left), out=grad_low_TR[:, part])
                # With the wide matrix on the right; the other order takes a third longer.
                grad_b.append((low_TR[:, part].T @ g_TO).T.float() * pair.factor)
                start = part.stop
        ranks = [len(pair.a_RI) for pair in ctx.pairs if pair is not None]
        if masks:
            pieces = list(zip(torch.split(grad_low_TR, ranks, dim=1), masks, torch.split(a_RI, ranks), strict=True))
            grad_a = [(low.T @ (x_TI * mask)).float() for low, mask, _ in pieces]
            if grad_x is not None:
                for low, mask, a in pieces:
                    grad_x.addcmul_(low @ a, mask.to(low.dtype))
        else:
            grad_a = list(torch.split((grad_low_TR.T @ x_TI).float(), ranks))
            if grad_x is not None:
                grad_x.addmm_(grad_low_TR, a_RI)
        updates = [t for pair in zip(grad_a, grad_b, strict=True) for t in pair]
        return grad_x, None, None, *updates
