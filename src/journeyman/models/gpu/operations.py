"""The operations of the decoder for CUDA: see models.operations for their meaning, models.gpu.kernels for the kernels.

Matrix products go to cuBLAS, everything between them to kernels of our own.
Backward passes are written by hand, and the adapter's gradients are added where the optimizer expects them, so
autograd only carries the gradient from layer to layer. On a CPU, which has no such kernels, the same code uses the
operations of CpuOperations: tests compare the two there, and the kernels with them in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from journeyman.models.activation import gated
from journeyman.models.attention import AttentionRules, packed_attention
from journeyman.models.attention import Packing as GridPacking
from journeyman.models.decoder import LayerLora, LayerWeights
from journeyman.models.gpu.adapters import GroupAdapter
from journeyman.models.gpu.blocks import Blocks
from journeyman.models.gpu.frozen import Eight, Frozen, backward_product, forward_product, wide_product
from journeyman.models.gpu.limits import loss_rows
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
    """The operations on a GPU."""

    def __init__(self, anchor: Tensor) -> None:
        # An operation without an input that needs a gradient is not run backward: the first layer's input needs none.
        self._anchor = anchor

    def packing(self, lengths: Sequence[int], prefixes: Sequence[int] | None, device: torch.device) -> Any:
        if device.type != "cuda":
            grid = GridPacking(lengths, prefixes, device)
            return Packing(grid.position_T, None, grid)
        from journeyman.models.gpu.attention_kernels import attention_blocks

        blocks = attention_blocks(
            lengths, [-1] * len(lengths) if prefixes is None else prefixes,
            lambda made: made.pin_memory().to(device, non_blocking=True),
        )  # fmt: skip
        return Packing(blocks.position_T, blocks, None)

    def attend(self, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Any, rules: AttentionRules) -> Tensor:
        if packing.grid is not None:
            return packed_attention(q_THE, k_TKE, v_TKE, packing.grid, rules)
        made: Tensor = _Attention.apply(q_THE, k_TKE, v_TKE, packing.blocks, rules)  # type: ignore[no-untyped-call]
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
            made.append(_Project.apply(x, self._anchor, weight, bias, adapter))  # type: ignore[no-untyped-call]
        return made

    def feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, activation: Activation) -> Tensor:
        made: Tensor = _FeedForward.apply(  # type: ignore[no-untyped-call]
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
        x_THD, g_THD = (one if one.ndim == 3 else one[:, None] for one in (x, _dense(gradients[0])))
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
        return _kernels().rotate(_dense(gradients[0]), *ctx.saved_tensors, back=True), None, None


class _Attention(torch.autograd.Function):
    """Long rows that share nothing go to the kernels that torch brings, the others to ours, which know packs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Any, rules: AttentionRules) -> Tensor:
        from journeyman.models.gpu.attention_kernels import attention_forward

        plain = blocks.others is not None and rules.window is None and rules.cap is None and rules.sinks_H is None
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

        (q, k, v, out, lse), g = ctx.saved_tensors, _dense(gradients[0])
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
    q, k, v = (F.pad(one, (0, 0, 0, 0, 0, more)).transpose(0, 1)[None] for one in (q_THE, k_TKE, v_TKE))
    with sdpa_kernel(_ALONE, set_priority=True):
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=rules.scale, enable_gqa=q_THE.shape[1] != k_TKE.shape[1]
        )
    return mixed[0, :, :tokens].transpose(0, 1)


_PLANNED = 1024
_ALONE = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


class _Project(torch.autograd.Function):
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
        low_TR = _low_rank(x_TI, adapter)
        ctx.save_for_backward(x_TI, low_TR)
        return y_TO.addmm_(low_TR, adapter.b_OR.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        adapter, g_TO = ctx.adapter, _dense(gradients[0])
        dx_TI = backward_product(g_TO, ctx.weight) if ctx.needs_input_grad[0] else None
        if adapter is not None:
            x_TI, low_TR = ctx.saved_tensors
            slope_TR = _add_gradients(adapter, x_TI, low_TR, g_TO)
            if dx_TI is not None:
                dx_TI = _add_input_gradient(adapter, dx_TI, slope_TR)
        return dx_TI, None, None, None, None


class _FeedForward(torch.autograd.Function):
    """Gate, up, activation and down at once: the widest tensors of the model are written once and read once.

    The low-rank updates of gate and up, and the gradient through down's A, are added by the kernels of the activation.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, anchor: Tensor, gate_up: Frozen, down: Frozen, bias: Mapping[str, Tensor],
        in_adapter: GroupAdapter | None, out_adapter: GroupAdapter | None, gelu: bool,
    ) -> Tensor:  # fmt: skip
        raw = forward_product(x_TD, gate_up, bias.get("gate_up_proj"))
        low_TR = None if in_adapter is None else _low_rank(x_TD, in_adapter)
        b_OR = None if in_adapter is None else in_adapter.b_OR
        active_TF, small = _gate_forward(raw, low_TR, b_OR, gelu, isinstance(down, Eight))
        y_TD = forward_product(active_TF, down, bias.get("down_proj"), small)
        low_TS = None
        if out_adapter is not None:
            low_TS = _low_rank(active_TF, out_adapter)
            y_TD.addmm_(low_TS, out_adapter.b_OR.T)
        ctx.save_for_backward(x_TD, raw, low_TR, active_TF if out_adapter is not None else None, low_TS)
        ctx.gate_up, ctx.down, ctx.adapters, ctx.gelu = gate_up, down, (in_adapter, out_adapter), gelu
        return y_TD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x_TD, raw, low_TR, active_TF, low_TS = ctx.saved_tensors
        (in_adapter, out_adapter), g_TD = ctx.adapters, _dense(gradients[0])
        d_active = backward_product(g_TD, ctx.down)
        slope_TS, a_SF = None, None
        if out_adapter is not None:
            slope_TS, a_SF = _add_gradients(out_adapter, active_TF, low_TS, g_TD), out_adapter.a_RI
            if out_adapter.seeds:
                d_active, slope_TS, a_SF = _add_input_gradient(out_adapter, d_active, slope_TS), None, None
        b_OR = None if in_adapter is None else in_adapter.b_OR
        d_raw, small = _gate_backward(
            d_active, slope_TS, a_SF, raw, low_TR, b_OR, ctx.gelu, isinstance(ctx.gate_up, Eight)
        )
        dx_TD = backward_product(d_raw, ctx.gate_up, small) if ctx.needs_input_grad[0] else None
        if in_adapter is not None:
            slope_TR = _add_gradients(in_adapter, x_TD, low_TR, d_raw)
            if dx_TD is not None:
                dx_TD = _add_input_gradient(in_adapter, dx_TD, slope_TR)
        return dx_TD, *[None] * 7


def _dense(g: Tensor) -> Tensor:
    return g if g.stride(-1) == 1 else g.contiguous()


def _gate_forward(
    raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None, gelu: bool, eight: bool
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    if raw.is_cuda:
        return _kernels().gate_forward(raw, low_TR, b_OR, gelu=gelu, eight=eight)  # type: ignore[no-any-return]
    return gated(*_gate_and_up(raw, low_TR, b_OR), "gelu" if gelu else "silu"), None


def _gate_backward(
    g_TF: Tensor, slope_TS: Tensor | None, a_SF: Tensor | None, raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None,
    gelu: bool, eight: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:  # fmt: skip
    if raw.is_cuda:
        return _kernels().gate_backward(  # type: ignore[no-any-return]
            g_TF, slope_TS, a_SF, raw, low_TR, b_OR, gelu=gelu, eight=eight
        )
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


def _low_rank(x_TI: Tensor, adapter: GroupAdapter) -> Tensor:
    """x Aᵀ (T, R); with dropout, each part's A reads x with different elements dropped."""
    if not adapter.seeds:
        return x_TI @ adapter.a_RI.T
    low = [
        _dropped(x_TI, seed, adapter.dropped) @ adapter.a_RI[part.ranks].T
        for part, seed in zip(adapter.parts, adapter.seeds, strict=True)
    ]
    return torch.cat(low, dim=1)


def _add_gradients(adapter: GroupAdapter, x_TI: Tensor, low_TR: Tensor, g_TO: Tensor) -> Tensor:
    """Adds the gradients of A and B to their sums, and returns that of x Aᵀ (T, R)."""
    slope_TR = torch.mm(g_TO, adapter.b_OR)
    if not adapter.seeds:
        adapter.gradient_a_RI += wide_product(slope_TR.T, x_TI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=False):
        x_again = _dropped(x_TI, seed, adapter.dropped)
        adapter.gradient_a_RI[part.ranks] += wide_product(slope_TR[:, part.ranks].T, x_again)
    slope_RO = wide_product(low_TR.T, g_TO)
    for part in adapter.parts:
        part.gradient_b_OR.add_(slope_RO[part.ranks, part.rows].T, alpha=adapter.scale)
    return slope_TR


def _add_input_gradient(adapter: GroupAdapter, dx_TI: Tensor, slope_TR: Tensor) -> Tensor:
    if not adapter.seeds:
        return dx_TI.addmm_(slope_TR, adapter.a_RI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=True):
        dx_TI = _dropped(slope_TR[:, part.ranks] @ adapter.a_RI[part.ranks], seed, adapter.dropped, dx_TI)
    return dx_TI


def _dropped(x_TI: Tensor, seed: Tensor, share: float, add: Tensor | None = None) -> Tensor:
    """x / (1 - share) with a share of its elements dropped, the same ones for the same seed, plus `add`."""
    if x_TI.is_cuda:
        made: Tensor = _kernels().drop(x_TI, seed, share, add)
        return made
    kept = torch.rand(x_TI.shape, generator=torch.Generator().manual_seed(int(seed))) >= share
    dropped = x_TI * kept / (1 - share)
    return dropped if add is None else add + dropped


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
