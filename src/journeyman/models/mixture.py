"""A feed-forward network of experts: a router chooses a few of them for each token (Shazeer et al., 2017, 1701.06538).

The rows of all tokens are sorted by expert, so that each expert computes its tokens in one product per matrix, without
padding. Router and experts are frozen; gradients reach x through the experts' products and through their weights in
the sum, but not through the choice, which has none.

The router computes in float32, as llama.cpp does: with bfloat16, tokens whose candidates are close together would be
sent to other experts than in serving. Between equal logits, the choice is undefined here and there.
Shape letters: T tokens, D hidden, N experts, K experts of a token, S = T·K rows, F feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.activation import gated
from journeyman.models.geometry import Geometry
from journeyman.models.linear import Frozen, LoraPair, project

GATE_UP, DOWN = "experts.gate_up_proj", "experts.down_proj"


@dataclass(frozen=True)
class Router:
    """The frozen matrix that rates the experts for a token, in float32."""

    weight_ND: Tensor
    bias_N: Tensor | None = None


def mixture(
    x_TD: Tensor,
    router: Router,
    weights: Mapping[str, Tensor],
    biases: Mapping[str, Tensor],
    adapters: Mapping[str, LoraPair],
    geometry: Geometry,
) -> Tensor:
    """The weighted sum (T, D) of the outputs of each token's experts.

    Args:
        weights: of GATE_UP (N, 2F, D) and DOWN (N, D, F).
        biases: of the same modules (N, 2F) and (N, D), if they have any.
        adapters: of the same modules, stacked in the same way.
    """
    share_TK, chosen_TK = route(x_TD, router, geometry)
    order_S = chosen_TK.flatten().argsort(stable=True)
    token_S = order_S // chosen_TK.shape[1]
    counts = torch.bincount(chosen_TK.flatten(), minlength=len(router.weight_ND)).tolist()
    frozen = {module: _frozen(weights[module], biases.get(module)) for module in (GATE_UP, DOWN)}
    pairs = {module: _pairs(adapters.get(module), len(counts)) for module in (GATE_UP, DOWN)}
    made = []
    for expert, rows in enumerate(torch.split(x_TD.index_select(0, token_S), counts)):
        if len(rows):
            (fused,) = project(rows, [frozen[GATE_UP][expert]], [pairs[GATE_UP][expert]])
            gate, up = fused.chunk(2, dim=-1)
            active = gated(gate, up, geometry.family.activation)
            made += project(active, [frozen[DOWN][expert]], [pairs[DOWN][expert]])
    share_S = share_TK.flatten()[order_S].to(x_TD.dtype)
    total: Tensor = _WeightedSum.apply(torch.cat(made), share_S, token_S, len(x_TD))  # type: ignore[no-untyped-call]
    return total


def route(x_TD: Tensor, router: Router, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The weight of each chosen expert (T, K), float32, and its number (T, K)."""
    assert geometry.experts is not None and geometry.mixture is not None
    logits_TN = F.linear(x_TD.float(), router.weight_ND, router.bias_N)
    top_TK, chosen_TK = logits_TN.topk(geometry.experts.used, dim=-1)
    if geometry.mixture.normalized:
        return top_TK.softmax(-1), chosen_TK
    return logits_TN.softmax(-1).gather(1, chosen_TK), chosen_TK


class _WeightedSum(torch.autograd.Function):
    """Adds the weighted rows of each token. Autograd's own steps would keep the weighted rows as well."""

    @staticmethod
    def forward(ctx: Any, y_SD: Tensor, share_S: Tensor, token_S: Tensor, tokens: int) -> Tensor:
        ctx.save_for_backward(y_SD, share_S, token_S)
        return y_SD.new_zeros(tokens, y_SD.shape[1]).index_add_(0, token_S, y_SD * share_S[:, None])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y_SD, share_S, token_S = ctx.saved_tensors
        g_SD = gradients[0].index_select(0, token_S)
        return g_SD * share_S[:, None], (g_SD * y_SD).sum(-1), None, None


def _frozen(weight_NOI: Tensor, bias_NO: Tensor | None) -> list[Frozen]:
    if bias_NO is None:
        return [Frozen(weight_OI, None) for weight_OI in weight_NOI]
    return [Frozen(weight_OI, bias_O) for weight_OI, bias_O in zip(weight_NOI, bias_NO, strict=True)]


def _pairs(stacked: LoraPair | None, count: int) -> Sequence[LoraPair | None]:
    """The update of each expert. Each drops other elements of its input."""
    if stacked is None:
        return [None] * count
    # unbind, because the gradient of an index would be as large as the stack, once for each expert.
    parts = enumerate(zip(stacked.a_RI.unbind(), stacked.b_OR.unbind(), strict=True))
    dropout = stacked.dropout
    return [
        LoraPair(a_RI, b_OR, stacked.scale, dropout and replace(dropout, seed=(dropout.seed + expert) % 2**64))
        for expert, (a_RI, b_OR) in parts
    ]
