"""Cross-entropy at the labeled positions only, without building all logits.

The head is frozen, so its input gradient can be computed while the logits of a chunk exist. The backward pass is then
a single scaling, and at most `chunk_rows` rows of logits exist at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 512
_CHUNK_LOGITS = 1 << 25


def chunk_rows(vocab: int) -> int:
    """Rows of logits that exist at a time: fewer for a large vocabulary."""
    return max(64, min(CHUNK, _CHUNK_LOGITS // vocab))


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        total = hidden_LD.new_zeros((), dtype=torch.float32)
        needs_gradient = ctx.needs_input_grad[0]
        gradient_LD = torch.empty_like(hidden_LD) if needs_gradient else None
        chunk = chunk_rows(len(head_VD))
        for start in range(0, len(labels_L), chunk):
            rows = slice(start, start + chunk)
            logits = F.linear(hidden_LD[rows], head_VD).float()
            if cap is not None:
                logits.div_(cap).tanh_()
                slope = 1 - logits.square()
                logits.mul_(cap)
            picked = logits.gather(1, labels_L[rows, None])[:, 0]
            largest = logits.amax(-1, keepdim=True)
            # In place; the exponentials are both the terms of the sum and the probabilities of the gradient.
            terms = logits.sub_(largest).exp_()
            sums = terms.sum(-1, keepdim=True)
            total += ((sums.log() + largest)[:, 0] - picked).mul_(weights_L[rows]).sum()
            if gradient_LD is not None:
                probabilities = terms.mul_(weights_L[rows, None] / sums)
                probabilities.scatter_add_(1, labels_L[rows, None], -weights_L[rows, None])
                if cap is not None:
                    probabilities.mul_(slope)
                gradient_LD[rows] = probabilities.to(head_VD.dtype) @ head_VD
        ctx.gradient_LD = gradient_LD
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        return ctx.gradient_LD * gradients[0].to(ctx.gradient_LD.dtype), None, None, None, None


def label_loss(
    hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor, weights_L: Tensor | None = None, cap: float | None = None
) -> Tensor:
    """The weighted sum (not the mean) of the cross-entropy at L labeled positions, a float32 scalar.

    Args:
        hidden_LD: final hidden states at the positions that predict the labels.
        head_VD: the frozen output matrix; it gets no gradient.
        labels_L: the token ids to predict, int64.
        weights_L: float32; None: all 1.
        cap: a logit x is cap · tanh(x / cap); None: unchanged.
    """
    weights_L = torch.ones(len(labels_L)) if weights_L is None else weights_L
    loss: Tensor = _LabelLoss.apply(hidden_LD, head_VD, labels_L, weights_L, cap)  # type: ignore[no-untyped-call]
    return loss
