"""Frozen matrices on a GPU, in the compute type, in eight bits or in GGUF's blocks, and the products with them.

In eight bits (float8_e4m3fn) the matrix is stored twice, once for each product, because these products take both
factors along the summed axis: W with a scale for each output, Wᵀ with a scale for each input. Activations and
gradients get a scale for each row when they are multiplied (Micikevicius et al., 2022, arXiv 2209.05433).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.gpu.blocks import Blocks

_MOST = 448.0
"""The largest value of float8_e4m3fn."""


@dataclass(frozen=True)
class Eight:
    """A frozen matrix in eight bits.

    Attributes:
        weight_OI, scale_O: for y = x Wᵀ: values, and what multiplies each row (1, O).
        turned_IO, scale_I: for dx = g W: the same of the transposed matrix.
    """

    weight_OI: Tensor
    scale_O: Tensor
    turned_IO: Tensor
    scale_I: Tensor


Frozen = Tensor | Eight | Blocks


def in_eight_bits(weight_OI: Tensor) -> Eight:
    """The matrix in eight bits; both sizes must be multiples of 16."""
    return Eight(*_by_rows(weight_OI), *_by_rows(weight_OI.T.contiguous()))


def _by_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale_N1 = matrix.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / _MOST
    return (matrix.float() / scale_N1).to(torch.float8_e4m3fn), scale_N1.T.contiguous()


def quantized(x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in eight bits, and what multiplies each of them (T, 1)."""
    if x_TD.is_cuda:
        from journeyman.models.gpu import eight_kernels

        made: tuple[Tensor, Tensor] = eight_kernels.quantize(x_TD)
        return made
    values, scale_1T = _by_rows(x_TD)
    return values, scale_1T.T


def forward_product(x_TI: Tensor, weight: Frozen, bias_O: Tensor | None, small: Any = None) -> Tensor:
    """x Wᵀ + b (T, O). `small`: x in eight bits, if it is at hand."""
    if isinstance(weight, Tensor):
        return F.linear(x_TI, weight, bias_O)
    if isinstance(weight, Blocks):
        return _forward_by_pieces(x_TI, weight, bias_O)
    y_TO = _scaled_product(small or quantized(x_TI), weight.weight_OI, weight.scale_O, x_TI.dtype)
    return y_TO if bias_O is None else y_TO.add_(bias_O)


def backward_product(g_TO: Tensor, weight: Frozen, small: Any = None) -> Tensor:
    """g W (T, I). `small`: g in eight bits, if it is at hand."""
    if isinstance(weight, Tensor):
        return torch.mm(g_TO, weight)
    if isinstance(weight, Blocks):
        return _backward_by_pieces(g_TO, weight)
    return _scaled_product(small or quantized(g_TO), weight.turned_IO, weight.scale_I, g_TO.dtype)


def _forward_by_pieces(x_TI: Tensor, weight: Blocks, bias_O: Tensor | None) -> Tensor:
    y_TO: Tensor | None = None
    for rows, piece in weight.pieces():
        if len(piece) == weight.shape[0]:
            return F.linear(x_TI, piece, bias_O)
        if y_TO is None:
            y_TO = x_TI.new_empty(len(x_TI), weight.shape[0])
        torch.mm(x_TI, piece.T, out=y_TO[:, rows])
    assert y_TO is not None
    return y_TO if bias_O is None else y_TO.add_(bias_O)


def _backward_by_pieces(g_TO: Tensor, weight: Blocks) -> Tensor:
    dx_TI: Tensor | None = None
    for rows, piece in weight.pieces():
        if len(piece) == weight.shape[0]:
            return torch.mm(g_TO, piece)
        part_TI = wide_product(g_TO[:, rows], piece)
        dx_TI = part_TI if dx_TI is None else dx_TI.add_(part_TI)
    assert dx_TI is not None
    return dx_TI.to(g_TO.dtype)


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """left · right with sums and result in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _scaled_product(left: tuple[Tensor, Tensor], right: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    values, scale_T1 = left
    if values.is_cuda:
        return torch._scaled_mm(values, right.T, scale_a=scale_T1, scale_b=scale, out_dtype=dtype, use_fast_accum=True)
    return ((values.float() @ right.float().T) * scale_T1 * scale).to(dtype)
