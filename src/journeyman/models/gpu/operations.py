"""The operations of the decoder for CUDA: see models.operations for their meaning, models.gpu.kernels for the kernels.

Matrix products go to cuBLAS, everything between them to kernels of our own.
Backward passes are written by hand, and the adapter's gradients are added where the optimizer expects them, so
autograd only carries the gradient from layer to layer. On a CPU, which has no such kernels, the same code uses the
operations of CpuOperations: tests compare the two there, and the kernels with them in Triton's interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from journeyman.models.attention import AttentionRules, packed_attention
from journeyman.models.attention import Packing as GridPacking
from journeyman.models.decoder import LayerLora, LayerWeights
from journeyman.models.gpu.attention import Attention
from journeyman.models.gpu.blocks import Blocks
from journeyman.models.gpu.feed_forward import FeedForward
from journeyman.models.gpu.frozen import backward_product, forward_product
from journeyman.models.gpu.layout import dense, moved
from journeyman.models.gpu.limits import LONG_ROW, loss_rows
from journeyman.models.gpu.projection import Project
from journeyman.models.operations import Activation, CpuOperations


def _kernels() -> Any:
    from journeyman.models.gpu import kernels

    return kernels


@dataclass(frozen=True)
class Packing:
    """The layout of a pack on a GPU.

    Attributes:
        position_T: the position of each token in its row.
        blocks: the tiles of the attention kernels; None: on a CPU.
        grid: the layout for a CPU.
    """

    position_T: Tensor
    blocks: Any
    grid: GridPacking | None


class GpuOperations(CpuOperations):
    """The operations on a GPU.

    Args:
        deterministic: the same bits in every run; cuDNN's attention sums the gradients of queries in any order.
    """

    def __init__(self, anchor: Tensor, *, deterministic: bool = False) -> None:
        # An operation without an input that needs a gradient is not run backward: the first layer's input needs none.
        self._anchor = anchor
        self._long_from = math.inf if deterministic else LONG_ROW

    def packing(self, lengths: Sequence[int], prefixes: Sequence[int] | None, device: torch.device) -> Any:
        if device.type != "cuda":
            grid = GridPacking(lengths, prefixes, device)
            return Packing(grid.position_T, None, grid)
        from journeyman.models.gpu.attention_kernels import attention_blocks

        blocks = attention_blocks(
            lengths, [-1] * len(lengths) if prefixes is None else prefixes,
            lambda made: moved(made, device), self._long_from,
        )  # fmt: skip
        return Packing(blocks.position_T, blocks, None)

    def attend(self, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Any, rules: AttentionRules) -> Tensor:
        if packing.grid is not None:
            return packed_attention(q_THE, k_TKE, v_TKE, packing.grid, rules)
        made: Tensor = Attention.apply(q_THE, k_TKE, v_TKE, packing.blocks, rules)  # type: ignore[no-untyped-call]
        return made

    def norm(self, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        if not x.is_cuda:
            return super().norm(x, weight_D, eps)
        made: Tensor = _Norm.apply(x, weight_D, eps)  # type: ignore[no-untyped-call]
        return made

    def add_norm(self, x_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        if not x_TD.is_cuda:
            return super().add_norm(x_TD, added_TD, weight_D, eps)
        made: tuple[Tensor, Tensor] = _AddNorm.apply(x_TD, added_TD, weight_D, eps)  # type: ignore[no-untyped-call]
        return made

    def rotate(self, x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if not x_THE.is_cuda:
            return super().rotate(x_THE, cos, sin)
        made: Tensor = _Rotate.apply(x_THE, cos, sin)  # type: ignore[no-untyped-call]
        return made

    def project(self, x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
        made = []
        for module in modules:
            weight, bias, adapter = layer.linear[module], layer.bias.get(module), adapters.get(module)
            made.append(Project.apply(x, self._anchor, weight, bias, adapter))  # type: ignore[no-untyped-call]
        return made

    def feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, activation: Activation) -> Tensor:
        made: Tensor = FeedForward.apply(  # type: ignore[no-untyped-call]
            x_TD, self._anchor, layer.linear["gate_up_proj"], layer.linear["down_proj"], layer.bias,
            adapters.get("gate_up_proj"), adapters.get("down_proj"), activation == "gelu",
        )  # fmt: skip
        return made

    def label_loss(
        self, hidden_LD: Tensor, head_VD: Tensor | Blocks, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        if not hidden_LD.is_cuda:
            whole_VD = head_VD.whole() if isinstance(head_VD, Blocks) else head_VD
            assert isinstance(whole_VD, Tensor)
            return super().label_loss(hidden_LD, whole_VD, labels_L, weights_L, cap)
        made: Tensor = _LabelLoss.apply(hidden_LD, head_VD, labels_L, weights_L, cap)  # type: ignore[no-untyped-call]
        return made


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x_THD, out = x if x.ndim == 3 else x[:, None], torch.empty(x.shape, device=x.device, dtype=x.dtype)
        inverse_N = _kernels().norm_forward(x_THD, weight_D, out if x.ndim == 3 else out[:, None], eps)
        ctx.save_for_backward(x, weight_D, inverse_N)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, weight_D, inverse_N = ctx.saved_tensors
        x_THD, g_THD = (one if one.ndim == 3 else one[:, None] for one in (x, dense(gradients[0])))
        return _kernels().norm_backward(g_THD, x_THD, weight_D, inverse_N).view(x.shape), None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        total, out, inverse = _kernels().add_norm_forward(x_TD.contiguous(), added_TD.contiguous(), weight_D, eps)
        ctx.save_for_backward(total, weight_D, inverse)
        return total, out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        total, weight_D, inverse = ctx.saved_tensors
        of_total, of_out = (one.contiguous() for one in gradients)
        dx = _kernels().norm_backward(of_out[:, None], total[:, None], weight_D, inverse, of_total).view(total.shape)
        return dx, dx, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        made: Tensor = _kernels().rotate(x_THE, cos, sin, back=False)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _kernels().rotate(dense(gradients[0]), *ctx.saved_tensors, back=True), None, None


class _LabelLoss(torch.autograd.Function):
    """As loss.label_loss: the gradient of the hidden states is computed while a chunk's logits exist."""

    @staticmethod
    def forward(
        ctx: Any, hidden_LD: Tensor, head_VD: Tensor | Blocks, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        needs, losses, chunk = ctx.needs_input_grad[0], [], loss_rows(head_VD.shape[0])
        gradient_LD = torch.empty_like(hidden_LD) if needs else None
        for start in range(0, len(labels_L), chunk):
            rows = slice(start, start + chunk)
            logits = forward_product(hidden_LD[rows], head_VD, None)
            losses.append(_kernels().cross_entropy(logits, labels_L[rows], weights_L[rows], cap, slope=needs))
            if gradient_LD is not None:
                gradient_LD[rows] = backward_product(logits, head_VD)
            del logits  # before those of the next rows are made
        ctx.gradient_LD = gradient_LD
        return torch.cat(losses).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return ctx.gradient_LD * gradients[0].to(ctx.gradient_LD.dtype), None, None, None, None
