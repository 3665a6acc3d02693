"""Triton kernels that put rows into eight bits (float8_e4m3fn), each with a scale."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,import-not-found,import-untyped"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from journeyman.models.gpu.kernels import row_options

Eight = tuple[Tensor, Tensor]
"""Values in float8_e4m3fn, and the float32 scale of each row that multiplies them (N, 1)."""


def _empty_eight(like: Tensor) -> Eight:
    scales = torch.empty(len(like), 1, device=like.device, dtype=torch.float32)
    return torch.empty(like.shape, device=like.device, dtype=torch.float8_e4m3fn), scales


@triton.jit
def _quantize(x, quantized, scales, x_t, width: tl.constexpr, BLOCK: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    values = tl.load(x + token * x_t + at, mask=at < width, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), 0), 1e-12) / 448.0
    tl.store(scales + token, scale)
    tl.store(quantized + token * width + at, (values * (1.0 / scale)).to(quantized.dtype.element_ty), mask=at < width)


def quantize(x_TD: Tensor) -> Eight:
    """The rows in eight bits."""
    made = _empty_eight(x_TD)
    _quantize[(len(x_TD),)](x_TD, *made, x_TD.stride(0), width=x_TD.shape[1], **row_options(x_TD.shape[1]))
    return made


@triton.jit
def _quantize_by(x, largest, quantized, width, BLOCK: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inverse = 448.0 / tl.maximum(tl.load(largest + token), 1e-12)
    values = tl.load(x + token * width + at, mask=at < width, other=0.0).to(tl.float32) * inverse
    tl.store(quantized + token * width + at, values.to(quantized.dtype.element_ty), mask=at < width)


def in_eight_bits(x_TD: Tensor, largest_T: Tensor) -> Eight:
    """The rows in eight bits, by the largest absolute value of each."""
    quantized = torch.empty(x_TD.shape, device=x_TD.device, dtype=torch.float8_e4m3fn)
    tokens, width = x_TD.shape
    _quantize_by[(tokens, triton.cdiv(width, 4096))](x_TD, largest_T, quantized, width, BLOCK=4096, num_warps=8)
    return quantized, (largest_T.clamp(min=1e-12) / 448.0)[:, None]
