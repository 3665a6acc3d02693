"""Attention of packs on a GPU, with its backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from journeyman.models.attention import AttentionRules
from journeyman.models.gpu.layout import dense


class Attention(torch.autograd.Function):
    """Long rows that share nothing go to the kernels that torch brings, the others to ours, which know packs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Any, rules: AttentionRules) -> Tensor:
        from journeyman.models.gpu.attention_kernels import attention_forward

        # cuDNN and flash attention have no float32.
        plain = not (q.is_cuda and q.dtype == torch.float32)
        plain = (
            plain and blocks.others is not None and rules.window is None and rules.cap is None and rules.sinks_H is None
        )
        ours = blocks.others if plain else blocks
        out, lse = attention_forward(q, k, v, ours, rules)
        ctx.long = []
        for begin, end in blocks.long if plain else ():
            inputs = [one[begin:end].detach().requires_grad_() for one in (q, k, v)]
            with torch.enable_grad():
                mixed = _attend_alone(inputs[0], inputs[1], inputs[2], rules)
            out[begin:end] = mixed.detach()
            ctx.long.append((begin, end, inputs, mixed))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.blocks, ctx.rules = ours, rules
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        from journeyman.models.gpu.attention_kernels import attention_backward

        (q, k, v, out, lse), g = ctx.saved_tensors, dense(gradients[0])
        found = attention_backward(g, q, k, v, out, lse, ctx.blocks, ctx.rules)
        while ctx.long:
            begin, end, inputs, mixed = ctx.long.pop()
            for whole, part in zip(found, torch.autograd.grad(mixed, inputs, g[begin:end]), strict=True):
                whole[begin:end] = part
        return *found, None, None


def _attend_alone(q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, rules: AttentionRules) -> Tensor:
    """Causal attention of one sequence (T, H, E), by cuDNN where it is there.

    cuDNN plans for every length, which takes a tenth of a second; so the sequence is padded at its end, which no query
    sees.
    """
    tokens = len(q_THE)
    more = -tokens % _PLANNED if q_THE.is_cuda else 0
    padded = (F.pad(one, (0, 0, 0, 0, 0, more)) if more else one for one in (q_THE, k_TKE, v_TKE))
    q, k, v = (one.transpose(0, 1)[None] for one in padded)
    with sdpa_kernel(_ALONE, set_priority=True):
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=rules.scale, enable_gqa=q_THE.shape[1] != k_TKE.shape[1]
        )
    return mixed[0, :, :tokens].transpose(0, 1)


_PLANNED = 1024
_ALONE = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
