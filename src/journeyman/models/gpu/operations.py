"""The operations of the decoder for CUDA: see models.operations for their meaning, models.gpu.kernels for the kernels.

Matrix products go to cuBLAS, attention to the flash attention that torch brings, everything between them to kernels.
Backward passes are written by hand, and the adapter's gradients are added where the optimizer expects them, so
autograd only carries the gradient from layer to layer. On a CPU, which has no such kernels, the same code uses the
operations of CpuOperations: tests compare the two there, and the kernels with them in Triton's interpreter.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.attention import AttentionRules, packed_attention
from journeyman.models.attention import Packing as GridPacking
from journeyman.models.decoder import LayerLora, LayerWeights
from journeyman.models.gpu.adapters import GroupAdapter
from journeyman.models.operations import CpuOperations


def _kernels() -> Any:
    from journeyman.models.gpu import kernels

    return kernels


@cache
def _takes_gqa() -> bool:
    """Whether this torch wants to be told that queries have more heads than keys; earlier ones see it themselves."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


@dataclass(frozen=True)
class Packing:
    """The layout of a pack for flash attention: every row's queries, and the keys of its prefix and its own.

    Attributes:
        position_T: the position of each token in its row.
        starts_q, starts_k: where the queries and keys of each segment start, int32, with the end at the end.
        longest_q, longest_k: the most queries and keys of a segment.
        key_of: the token of each key, if segments have prefixes; None: keys are the tokens.
        grid: the layout for what flash attention does not compute.
    """

    position_T: Tensor
    starts_q: Tensor
    starts_k: Tensor
    longest_q: int
    longest_k: int
    key_of: Tensor | None
    grid: GridPacking | None


class GpuOperations(CpuOperations):
    """The operations on a GPU."""

    def __init__(self, anchor: Tensor) -> None:
        # An operation without an input that needs a gradient is not run backward: the first layer's input needs none.
        self._anchor = anchor

    def packing(self, lengths: Sequence[int], prefixes: Sequence[int] | None, device: torch.device) -> Any:
        prefixes = [-1] * len(lengths) if prefixes is None else prefixes
        if device.type != "cuda":
            grid, none = GridPacking(lengths, prefixes, device), torch.empty(0)
            return Packing(grid.position_T, none, none, 0, 0, None, grid)
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        before = [lengths[prefix] if prefix >= 0 else 0 for prefix in prefixes]
        keys = [own + more for own, more in zip(lengths, before, strict=True)]
        position_T = torch.cat([torch.arange(b, b + n) for b, n in zip(before, lengths, strict=True)])
        key_of = None
        if any(before):
            pieces = []
            for number, prefix in enumerate(prefixes):
                if prefix >= 0:
                    pieces.append(torch.arange(starts[prefix], starts[prefix] + lengths[prefix]))
                pieces.append(torch.arange(starts[number], starts[number + 1]))
            key_of = torch.cat(pieces)
        starts_k = torch.tensor([0, *keys]).cumsum(0)
        moved = [
            None if one is None else one.pin_memory().to(device, non_blocking=True)
            for one in (position_T, torch.tensor(starts, dtype=torch.int32), starts_k.to(torch.int32), key_of)
        ]
        return Packing(moved[0], moved[1], moved[2], max(lengths), max(keys), moved[3], None)  # type: ignore[arg-type]

    def attend(self, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Any, rules: AttentionRules) -> Tensor:
        if packing.grid is not None:
            return packed_attention(q_THE, k_TKE, v_TKE, packing.grid, rules)
        from torch.nn.attention.varlen import varlen_attn

        if packing.key_of is not None:
            k_TKE, v_TKE = k_TKE[packing.key_of], v_TKE[packing.key_of]
        window = -1 if rules.window is None or rules.window >= packing.longest_k else rules.window - 1
        more: dict[str, Any] = {"enable_gqa": True} if _takes_gqa() else {}
        out = varlen_attn(
            q_THE, k_TKE, v_TKE, packing.starts_q, packing.starts_k, packing.longest_q, packing.longest_k,
            window_size=(window, 0), scale=rules.scale, **more,
        )  # fmt: skip
        assert isinstance(out, Tensor)
        return out

    def norm(self, x: Tensor, weight_D: Tensor, eps: float, room: int = 0) -> Tensor:
        made: Tensor = _Norm.apply(x, weight_D, eps, room)  # type: ignore[no-untyped-call]
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

    def gate(self, gate_up: Sequence[Tensor], activation: str) -> Tensor:
        if not gate_up[0].is_cuda:
            return super().gate(gate_up, activation)
        made: Tensor = _Gate.apply(gate_up[0], activation == "gelu")  # type: ignore[no-untyped-call]
        return made

    def label_loss(
        self, hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        if not hidden_LD.is_cuda:
            return super().label_loss(hidden_LD, head_VD, labels_L, weights_L, cap)
        made: Tensor = _LabelLoss.apply(hidden_LD, head_VD, labels_L, weights_L, cap)  # type: ignore[no-untyped-call]
        return made


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, room: int) -> Tensor:
        width = x.shape[-1]
        x_THD = x if x.ndim == 3 else x[:, None]
        out_THD = _roomy((len(x), x_THD.shape[1], width), room, x)
        if x.is_cuda:
            inverse_N = _kernels().norm_forward(x_THD, weight_D, out_THD, eps)
        else:
            wide = x_THD.float()
            inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
            out_THD.copy_(wide * inverse * weight_D.float())
            inverse_N = inverse.flatten()
        ctx.save_for_backward(x, weight_D, inverse_N)
        return out_THD if x.ndim == 3 else out_THD.squeeze_(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, weight_D, inverse_N = ctx.saved_tensors
        (g,) = gradients
        g = g if g.stride(-1) == 1 else g.contiguous()
        if x.is_cuda:
            x_THD, g_THD = (one if one.ndim == 3 else one[:, None] for one in (x, g))
            return _kernels().norm_backward(g_THD, x_THD, weight_D, inverse_N).view(x.shape), None, None, None
        inverse = inverse_N.view(*x.shape[:-1], 1)
        weighted, wide = g.float() * weight_D.float(), x.float()
        mean = (weighted * wide).mean(-1, keepdim=True)
        return (inverse * (weighted - wide * inverse.square() * mean)).to(x.dtype), None, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        made: Tensor = _kernels().rotate(x_THE, cos, sin, back=False)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        g = gradients[0] if gradients[0].stride(-1) == 1 else gradients[0].contiguous()
        return _kernels().rotate(g, *ctx.saved_tensors, back=True), None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, gelu: bool) -> Tensor:
        ctx.save_for_backward(gate_up)
        ctx.gelu = gelu
        made: Tensor = _kernels().gate_forward(gate_up, gelu=gelu)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gate_up,) = ctx.saved_tensors
        return _kernels().gate_backward(gradients[0], gate_up, gelu=ctx.gelu), None


class _Project(torch.autograd.Function):
    """y = x Wᵀ + b, with the group's low-rank update. The anchor is only there so that the backward pass runs.

    W may have columns to spare on the right (models.gpu.adapters), which are its B.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, anchor: Tensor, wide_OW: Tensor, bias_O: Tensor | None, adapter: GroupAdapter | None
    ) -> Tensor:
        inputs = x_TI.shape[1]
        ctx.adapter, ctx.weight_OI = adapter, wide_OW[:, :inputs]
        if adapter is None:
            ctx.save_for_backward()
            return F.linear(x_TI, ctx.weight_OI, bias_O)
        if wide_OW.shape[1] > inputs and not adapter.seeds:
            x_TW = _with_room(x_TI, wide_OW.shape[1])
            low_TR = x_TW[:, inputs:]
            torch.mm(x_TI, adapter.a_RI.T, out=low_TR)
            y_TO = F.linear(x_TW, wide_OW, bias_O)
        else:
            low_TR = _low_rank(x_TI, adapter)
            y_TO = F.linear(x_TI, ctx.weight_OI, bias_O).addmm_(low_TR, adapter.b_OR.T)
        ctx.save_for_backward(x_TI, low_TR)
        return y_TO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        adapter: GroupAdapter | None = ctx.adapter
        g_TO = gradients[0] if gradients[0].stride(-1) == 1 else gradients[0].contiguous()
        dx_TI = torch.mm(g_TO, ctx.weight_OI) if ctx.needs_input_grad[0] else None
        if adapter is None:
            return dx_TI, None, None, None, None
        x_TI, low_TR = ctx.saved_tensors
        slope_TR = torch.mm(g_TO, adapter.b_OR)
        _add_gradients(adapter, x_TI, low_TR, slope_TR, g_TO)
        if dx_TI is not None:
            dx_TI = _add_input_gradient(adapter, dx_TI, slope_TR)
        return dx_TI, None, None, None, None


def _roomy(shape: tuple[int, int, int], room: int, like: Tensor) -> Tensor:
    """An empty tensor (T, H, D) with `room` unused columns after each row.

    It is no view of the larger memory for autograd, which would forbid `project` to write to these columns.
    """
    tokens, heads, width = shape
    memory = like.new_empty(tokens * heads * (width + room)).untyped_storage()
    strides = (heads * (width + room), width + room, 1)
    return like.new_empty(0).set_(memory, 0, shape, strides)


def _with_room(x_TI: Tensor, width: int) -> Tensor:
    """x with the columns behind it in memory, if `norm` left them; otherwise a copy with such columns."""
    memory = x_TI.untyped_storage()
    if x_TI.stride() == (width, 1) and memory.nbytes() >= len(x_TI) * width * x_TI.element_size():
        return x_TI.new_empty(0).set_(memory, x_TI.storage_offset(), (len(x_TI), width), (width, 1))
    wide = x_TI.new_empty(len(x_TI), width)
    wide[:, : x_TI.shape[1]] = x_TI
    return wide


def _low_rank(x_TI: Tensor, adapter: GroupAdapter) -> Tensor:
    """x Aᵀ (T, R); with dropout, each part's A reads x with different elements dropped."""
    if not adapter.seeds:
        return x_TI @ adapter.a_RI.T
    low = [
        _dropped(x_TI, seed, adapter.dropped) @ adapter.a_RI[part.ranks].T
        for part, seed in zip(adapter.parts, adapter.seeds, strict=True)
    ]
    return torch.cat(low, dim=1)


def _add_gradients(adapter: GroupAdapter, x_TI: Tensor, low_TR: Tensor, slope_TR: Tensor, g_TO: Tensor) -> None:
    """Adds the gradients of A and B to their sums."""
    if not adapter.seeds:
        ranks = len(adapter.gradient_a_RI)  # without the columns that only align rows
        adapter.gradient_a_RI += _product(slope_TR[:, :ranks].T, x_TI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=False):
        x_again = _dropped(x_TI, seed, adapter.dropped)
        adapter.gradient_a_RI[part.ranks] += _product(slope_TR[:, part.ranks].T, x_again)
    slope_RO = _product(low_TR.T, g_TO)
    for part in adapter.parts:
        part.gradient_b_OR.add_(slope_RO[part.ranks, part.rows].T, alpha=adapter.scale)


def _add_input_gradient(adapter: GroupAdapter, dx_TI: Tensor, slope_TR: Tensor) -> Tensor:
    if not adapter.seeds:
        return dx_TI.addmm_(slope_TR, adapter.a_RI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=True):
        dx_TI = _dropped(slope_TR[:, part.ranks] @ adapter.a_RI[part.ranks], seed, adapter.dropped, dx_TI)
    return dx_TI


def _dropped(x_TI: Tensor, seed: int, share: float, add: Tensor | None = None) -> Tensor:
    """x / (1 - share) with a share of its elements dropped, the same ones for the same seed, plus `add`."""
    if x_TI.is_cuda:
        made: Tensor = _kernels().drop(x_TI, seed, share, add)
        return made
    kept = torch.rand(x_TI.shape, generator=torch.Generator().manual_seed(seed)) >= share
    dropped = x_TI * kept / (1 - share)
    return dropped if add is None else add + dropped


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left · right with sums and result in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


class _LabelLoss(torch.autograd.Function):
    """As loss.label_loss: the gradient of the hidden states is computed while a chunk's logits exist."""

    @staticmethod
    def forward(
        ctx: Any, hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        needs, losses = ctx.needs_input_grad[0], []
        gradient_LD = torch.empty_like(hidden_LD) if needs else None
        for start in range(0, len(labels_L), _CHUNK):
            rows = slice(start, start + _CHUNK)
            logits = F.linear(hidden_LD[rows], head_VD)
            losses.append(_kernels().cross_entropy(logits, labels_L[rows], weights_L[rows], cap, slope=needs))
            if gradient_LD is not None:
                torch.mm(logits, head_VD, out=gradient_LD[rows])
        ctx.gradient_LD = gradient_LD
        return torch.cat(losses).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return ctx.gradient_LD * gradients[0].to(ctx.gradient_LD.dtype), None, None, None, None


_CHUNK = 4096
"""Rows of logits that exist at a time."""
