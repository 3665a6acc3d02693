"""Frozen linear layers that share an input, with their low-rank updates, as one operation.

q, k and v (and gate and up) read the same x, so their A matrices are multiplied at once, and x gets one gradient
instead of two for each layer. The update is added inside the product (addmm), and only x and x·Aᵀ are kept for the
backward pass. For each layer i (Hu et al., 2021, arXiv 2106.09685):

    y_i = x W_iᵀ + b_i + s (x A_iᵀ) B_iᵀ
    dx = Σ g_i W_i + (s g_i B_i) A_i        dA_i = (s g_i B_i)ᵀ x        dB_i = s g_iᵀ (x A_iᵀ)

With dropout, each layer's A reads x with different elements dropped, and s is divided by the share that is kept.

Several adapters on one frozen base share the products with W: each has its own rows of x (`Portions`), for which its
updates are computed.
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
class Portions:
    """The updates that several adapters have for one layer: each applies to its own rows of x.

    Attributes:
        sizes: rows of each adapter, in their order in x; the same for all layers that read the same x.
        pairs: None: this adapter leaves the layer unchanged.
    """

    sizes: Sequence[int]
    pairs: Sequence[LoraPair | None]


@dataclass
class Frozen:
    """The frozen part of a linear layer."""

    weight_OI: Tensor
    bias_O: Tensor | None


def project(x_TI: Tensor, layers: Sequence[Frozen], updates: Sequence[LoraPair | Portions | None]) -> list[Tensor]:
    """The outputs of layers that read the same x, each with its update if it has one."""
    if not any(updates):
        return [F.linear(x_TI, one.weight_OI, one.bias_O) for one in layers]
    portions = _portions(updates, len(x_TI))
    trained = [
        tensor
        for portion in portions
        for pair in portion.pairs
        if pair is not None
        for tensor in (pair.a_RI, pair.b_OR)
    ]
    made: tuple[Tensor, ...] = _Project.apply(x_TI, layers, portions, *trained)  # type: ignore[no-untyped-call]
    return list(made)


@dataclass
class _Portion:
    """Rows of x, and what each layer has for them."""

    rows: slice
    pairs: Sequence[LoraPair | None]

    @property
    def present(self) -> list[LoraPair]:
        return [pair for pair in self.pairs if pair is not None]


def _portions(updates: Sequence[LoraPair | Portions | None], rows: int) -> list[_Portion]:
    """The portions of x that have an update in some layer."""
    sizes = next((one.sizes for one in updates if isinstance(one, Portions)), [rows])
    assert sum(sizes) == rows
    made, start = [], 0
    for number, size in enumerate(sizes):
        pairs = [one.pairs[number] if isinstance(one, Portions) else one for one in updates]
        if any(pairs):
            made.append(_Portion(slice(start, start + size), pairs))
        start += size
    return made


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, layers: Sequence[Frozen], portions: Sequence[_Portion], *updates: Tensor
    ) -> tuple[Tensor, ...]:
        outs = [F.linear(x_TI, one.weight_OI, one.bias_O) for one in layers]
        kept = [_add_updates(x_TI[one.rows], one, [out[one.rows] for out in outs]) for one in portions]
        ctx.save_for_backward(x_TI, *(tensor for tensors in kept for tensor in tensors))
        ctx.layers, ctx.portions, ctx.kept = layers, portions, [len(tensors) for tensors in kept]
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x_TI, *kept = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            for layer, g_TO in zip(ctx.layers, gradients, strict=True):
                grad_x = g_TO @ layer.weight_OI if grad_x is None else grad_x.addmm_(g_TO, layer.weight_OI)
        updates: list[Tensor] = []
        for portion, count in zip(ctx.portions, ctx.kept, strict=True):
            rows = portion.rows
            into = grad_x[rows] if grad_x is not None else None
            updates += _gradients_of_updates(x_TI[rows], portion, kept[:count], [g[rows] for g in gradients], into)
            kept = kept[count:]
        return grad_x, None, None, *updates


def _add_updates(x_TI: Tensor, portion: _Portion, outs: Sequence[Tensor]) -> list[Tensor]:
    """Adds each pair's update to the output of its layer, and returns what the backward pass needs."""
    kind, present = x_TI.dtype, portion.present
    a_RI = torch.cat([pair.a_RI for pair in present]).to(kind)
    masks = [pair.dropout.mask(x_TI.shape) for pair in present if pair.dropout is not None]
    if masks:
        parts = torch.split(a_RI, [len(pair.a_RI) for pair in present])
        low_TR = torch.cat([(x_TI * mask) @ part.T for mask, part in zip(masks, parts, strict=True)], dim=1)
    else:
        low_TR = x_TI @ a_RI.T
    b_OR = [(pair.b_OR * pair.factor).to(kind) for pair in present]
    start, left = 0, iter(b_OR)
    for pair, y_TO in zip(portion.pairs, outs, strict=True):
        if pair is not None:
            rank = len(pair.a_RI)
            y_TO.addmm_(low_TR[:, start : start + rank], next(left).T)
            start += rank
    return [low_TR, a_RI, *b_OR, *masks]


def _gradients_of_updates(
    x_TI: Tensor, portion: _Portion, kept: Sequence[Tensor], gradients: Sequence[Tensor], grad_x: Tensor | None
) -> list[Tensor]:
    """The gradients of A and B of each pair. Adds to `grad_x` what reaches x through the pairs."""
    low_TR, a_RI, *more = kept
    present = portion.present
    left, masks = iter(more[: len(present)]), more[len(present) :]
    grad_low_TR = torch.empty_like(low_TR)
    grad_b: list[Tensor] = []
    start = 0
    for pair, g_TO in zip(portion.pairs, gradients, strict=True):
        if pair is not None:
            part = slice(start, start + len(pair.a_RI))
            torch.mm(g_TO, next(left), out=grad_low_TR[:, part])
            # With the wide matrix on the right; the other order takes a third longer.
            grad_b.append((low_TR[:, part].T @ g_TO).T.float() * pair.factor)
            start = part.stop
    ranks = [len(pair.a_RI) for pair in present]
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
    return [tensor for pair in zip(grad_a, grad_b, strict=True) for tensor in pair]
