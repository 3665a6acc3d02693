"""A product with a frozen matrix and its low-rank update on a GPU, with its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from journeyman.models.gpu.adapters import GroupAdapter
from journeyman.models.gpu.frozen import Frozen, backward_product, forward_product
from journeyman.models.gpu.layout import dense
from journeyman.models.gpu.low_rank import add_gradients, add_input_gradient, low_rank


class Project(torch.autograd.Function):
    """y = x Wᵀ + b, with the group's low-rank update. The anchor is only there so that the backward pass runs."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, anchor: Tensor, weight: Frozen, bias_O: Tensor | None, adapter: GroupAdapter | None
    ) -> Tensor:
        ctx.adapter, ctx.weight = adapter, weight
        y_TO = forward_product(x_TI, weight, bias_O)
        if adapter is None:
            ctx.save_for_backward()
            return y_TO
        low_TR = low_rank(x_TI, adapter)
        ctx.save_for_backward(x_TI, low_TR)
        return y_TO.addmm_(low_TR, adapter.b_OR.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        adapter, g_TO = ctx.adapter, dense(gradients[0])
        dx_TI = backward_product(g_TO, ctx.weight) if ctx.needs_input_grad[0] else None
        if adapter is not None:
            x_TI, low_TR = ctx.saved_tensors
            slope_TR = add_gradients(adapter, x_TI, low_TR, g_TO)
            if dx_TI is not None:
                dx_TI = add_input_gradient(adapter, dx_TI, slope_TR)
        return dx_TI, None, None, None, None
