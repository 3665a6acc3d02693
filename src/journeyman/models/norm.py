"""Root mean square normalization in float32 for inputs of any type, with a backward pass that keeps little memory.

Zhang & Sennrich, 2019 (arXiv 1910.07467): y = w x r with r = 1 / sqrt(mean(x²) + ε), and with n = w g

    dx = r (n - x r² mean(n x))

The mean of squares is computed in float32, because bfloat16 would lose it to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Normalizes the last axis; the result has the type of `x`. The weight is frozen: it gets no gradient."""
    made: Tensor = _RmsNorm.apply(x, weight_D, eps)  # type: ignore[no-untyped-call]
    return made


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, inverse)
        out: Tensor = (wide * inverse).mul_(weight_D.float()).to(x.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight_D, inverse = ctx.saved_tensors
        # The product makes a copy that can be changed in place; float() of a float32 gradient would not.
        weighted, wide = gradients[0].float() * weight_D.float(), x.float()
        mean = (weighted * wide).sum(-1, keepdim=True).div_(x.shape[-1])
        return weighted.mul_(inverse).addcmul_(wide, mean.mul_(inverse**3), value=-1).to(x.dtype), None, None
