"""The gated feed-forward network on a GPU, with its backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from journeyman.models.activation import gated
from journeyman.models.gpu.adapters import GroupAdapter
from journeyman.models.gpu.frozen import Eight, Frozen, backward_product, forward_product
from journeyman.models.gpu.layout import dense
from journeyman.models.gpu.low_rank import add_gradients, add_input_gradient, low_rank


class FeedForward(torch.autograd.Function):
    """Gate, up, activation and down at once: the widest tensors of the model are written once and read once.

    The low-rank updates of gate and up, and the gradient through down's A, are added by the kernels of the activation.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, anchor: Tensor, gate_up: Frozen, down: Frozen, bias: Mapping[str, Tensor],
        in_adapter: GroupAdapter | None, out_adapter: GroupAdapter | None, gelu: bool,
    ) -> Tensor:  # fmt: skip
        raw = forward_product(x_TD, gate_up, bias.get("gate_up_proj"))
        low_TR = None if in_adapter is None else low_rank(x_TD, in_adapter)
        b_OR = None if in_adapter is None else in_adapter.b_OR
        active_TF, small = _gate_forward(raw, low_TR, b_OR, gelu, isinstance(down, Eight))
        y_TD = forward_product(active_TF, down, bias.get("down_proj"), small)
        low_TS = None
        if out_adapter is not None:
            low_TS = low_rank(active_TF, out_adapter)
            y_TD.addmm_(low_TS, out_adapter.b_OR.T)
        ctx.save_for_backward(x_TD, raw, low_TR, active_TF if out_adapter is not None else None, low_TS)
        ctx.gate_up, ctx.down, ctx.adapters, ctx.gelu = gate_up, down, (in_adapter, out_adapter), gelu
        return y_TD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x_TD, raw, low_TR, active_TF, low_TS = ctx.saved_tensors
        (in_adapter, out_adapter), g_TD = ctx.adapters, dense(gradients[0])
        d_active = backward_product(g_TD, ctx.down)
        slope_TS, a_SF = None, None
        if out_adapter is not None:
            slope_TS, a_SF = add_gradients(out_adapter, active_TF, low_TS, g_TD), out_adapter.a_RI
            if out_adapter.seeds:
                d_active, slope_TS, a_SF = add_input_gradient(out_adapter, d_active, slope_TS), None, None
        b_OR = None if in_adapter is None else in_adapter.b_OR
        d_raw, small = _gate_backward(
            d_active, slope_TS, a_SF, raw, low_TR, b_OR, ctx.gelu, isinstance(ctx.gate_up, Eight)
        )
        dx_TD = backward_product(d_raw, ctx.gate_up, small) if ctx.needs_input_grad[0] else None
        if in_adapter is not None:
            slope_TR = add_gradients(in_adapter, x_TD, low_TR, d_raw)
            if dx_TD is not None:
                dx_TD = add_input_gradient(in_adapter, dx_TD, slope_TR)
        return dx_TD, *[None] * 7


def _gate_forward(
    raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None, gelu: bool, eight: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    if raw.is_cuda:
        from journeyman.models.gpu import gate_kernels

        return gate_kernels.gate_forward(raw, low_TR, b_OR, gelu=gelu, eight=eight)
    return gated(*_gate_and_up(raw, low_TR, b_OR), "gelu" if gelu else "silu"), None


def _gate_backward(
    g_TF: Tensor, slope_TS: Tensor | None, a_SF: Tensor | None, raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None,
    gelu: bool, eight: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:  # fmt: skip
    if raw.is_cuda:
        from journeyman.models.gpu import gate_kernels

        return gate_kernels.gate_backward(g_TF, slope_TS, a_SF, raw, low_TR, b_OR, gelu=gelu, eight=eight)
    if slope_TS is not None and a_SF is not None:
        g_TF = g_TF + slope_TS @ a_SF
    gate_TF, up_TF = (one.requires_grad_() for one in _gate_and_up(raw, low_TR, b_OR))
    with torch.enable_grad():
        active_TF = gated(gate_TF, up_TF, "gelu" if gelu else "silu")
        return torch.cat(torch.autograd.grad(active_TF, (gate_TF, up_TF), g_TF), dim=1), None


def _gate_and_up(raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None) -> tuple[Tensor, Tensor]:
    if low_TR is not None and b_OR is not None:
        raw = raw + low_TR @ b_OR.T
    gate_TF, up_TF = raw.chunk(2, dim=1)
    return gate_TF.clone(), up_TF.clone()
