"""Triton kernels for what lies between the matrix products, each with the same result as models.operations on a CPU.

Every kernel computes in float32 and reads and writes the compute type once. Functions take tensors whose last axis is
contiguous; other strides are free. Letters: T tokens, H heads, E head dimension, D width, F feed-forward, V vocabulary.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,import-not-found,import-untyped"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

VARYING = ["tokens"]
"""Arguments that differ from pack to pack: one kernel for all values, as compiling another one takes seconds."""


@triton.jit
def _norm_forward(x, added, weight, total, out, inverse_N, heads, width, x_t, x_h, out_t, out_h, eps,
                  ADD: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    token, head = (row // heads).to(tl.int64), row % heads
    at = tl.arange(0, BLOCK)
    real = at < width
    values = tl.load(x + token * x_t + head * x_h + at, mask=real, other=0.0)
    if ADD:
        place = row.to(tl.int64) * width + at
        values = (values.to(tl.float32) + tl.load(added + place, mask=real, other=0.0)).to(total.dtype.element_ty)
        tl.store(total + place, values, mask=real)
    values = values.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 0) / width + eps)
    tl.store(inverse_N + row, inverse)
    scaled = values * inverse * tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + token * out_t + head * out_h + at, scaled.to(out.dtype.element_ty), mask=real)


@triton.jit
def _norm_backward(g, g_total, x, weight, inverse_N, dx, heads, width, g_t, g_h, x_t, x_h, ADD: tl.constexpr,
                   BLOCK: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    token, head = (row // heads).to(tl.int64), row % heads
    at = tl.arange(0, BLOCK)
    real = at < width
    values = tl.load(x + token * x_t + head * x_h + at, mask=real, other=0.0).to(tl.float32)
    weighted = tl.load(g + token * g_t + head * g_h + at, mask=real, other=0.0).to(tl.float32)
    weighted *= tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    inverse = tl.load(inverse_N + row)
    mean = tl.sum(weighted * values, 0) / width
    slope = inverse * (weighted - values * inverse * inverse * mean)
    if ADD:
        slope += tl.load(g_total + row.to(tl.int64) * width + at, mask=real, other=0.0).to(tl.float32)
    tl.store(dx + row.to(tl.int64) * width + at, slope.to(dx.dtype.element_ty), mask=real)


def norm_forward(x_THD: Tensor, weight_D: Tensor, out_THD: Tensor, eps: float) -> Tensor:
    """Writes the normalized rows to `out`, and returns 1 / root mean square of each row (T · H), float32."""
    tokens, heads, width = x_THD.shape
    inverse_N = torch.empty(tokens * heads, device=x_THD.device, dtype=torch.float32)
    _norm_forward[(tokens * heads,)](
        x_THD, x_THD, weight_D, out_THD, out_THD, inverse_N, heads, width, *x_THD.stride()[:2], *out_THD.stride()[:2],
        eps, ADD=False, **row_options(width),
    )  # fmt: skip
    return inverse_N


def add_norm_forward(x_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x + added, both contiguous; the sum normalized; and 1 / root mean square of each row (T), float32."""
    tokens, width = x_TD.shape
    total_TD, out_TD = torch.empty_like(x_TD), torch.empty_like(x_TD)
    inverse_T = torch.empty(tokens, device=x_TD.device, dtype=torch.float32)
    _norm_forward[(tokens,)](
        x_TD, added_TD, weight_D, total_TD, out_TD, inverse_T, 1, width, width, 0, width, 0, eps, ADD=True,
        **row_options(width),
    )  # fmt: skip
    return total_TD, out_TD, inverse_T


def norm_backward(
    g_THD: Tensor, x_THD: Tensor, weight_D: Tensor, inverse_N: Tensor, g_total: Tensor | None = None
) -> Tensor:
    """The gradient of the input (T, H, D), contiguous, plus `g_total` of the same shape, contiguous."""
    tokens, heads, width = x_THD.shape
    dx_THD = torch.empty(tokens, heads, width, device=x_THD.device, dtype=x_THD.dtype)
    _norm_backward[(tokens * heads,)](
        g_THD, dx_THD if g_total is None else g_total, x_THD, weight_D, inverse_N, dx_THD, heads, width,
        *g_THD.stride()[:2], *x_THD.stride()[:2], ADD=g_total is not None, **row_options(width),
    )  # fmt: skip
    return dx_THD


def row_options(width: int) -> dict[str, Any]:
    """Launch options of kernels that hold a row of this width in registers."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": 1 if block <= 256 else 4 if block <= 2048 else 8}


@triton.jit
def _rotate(x, cos, sin, out, size, rotated, x_t, x_h, out_t, out_h, heads, SIGN: tl.constexpr, HEADS: tl.constexpr,
            HALF: tl.constexpr):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    at, half = tl.arange(0, HALF)[None, :], rotated // 2
    real = (head < heads) & (at < half)
    left_at, right_at = x + token * x_t + head * x_h + at, x + token * x_t + head * x_h + half + at
    left, right = tl.load(left_at, mask=real).to(tl.float32), tl.load(right_at, mask=real).to(tl.float32)
    c = tl.load(cos + token * rotated + at, mask=at < half).to(tl.float32)
    s = tl.load(sin + token * rotated + at, mask=at < half).to(tl.float32) * SIGN
    to = out + token * out_t + head * out_h + at
    tl.store(to, (left * c - right * s).to(out.dtype.element_ty), mask=real)
    tl.store(to + half, (right * c + left * s).to(out.dtype.element_ty), mask=real)


def rotate(x_THE: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    """Rotary embedding by tables (T, 1, rotated), or with `back` its inverse, which is also its gradient."""
    tokens, heads, size = x_THE.shape
    rotated = cos.shape[-1]
    out_THE = torch.empty(tokens, heads, size, device=x_THE.device, dtype=x_THE.dtype)
    if rotated < size:
        out_THE[..., rotated:] = x_THE[..., rotated:]
    step = min(8, triton.next_power_of_2(heads))
    _rotate[(tokens, triton.cdiv(heads, step))](
        x_THE, cos, sin, out_THE, size, rotated, *x_THE.stride()[:2], *out_THE.stride()[:2], heads,
        SIGN=-1 if back else 1, HEADS=step, HALF=triton.next_power_of_2(rotated // 2), num_warps=2,
    )  # fmt: skip
    return out_THE


@triton.jit
def _cross_entropy(logits, labels, weights, losses, row_stride, cap, vocab: tl.constexpr, CAPPED: tl.constexpr,
                   SLOPE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * row_stride
    largest, total = tl.full((), float("-inf"), tl.float32), tl.zeros((), tl.float32)
    for begin in range(0, vocab, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        values = tl.load(start + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        if CAPPED:
            values = tl.where(at < vocab, cap * (2.0 * tl.sigmoid(2.0 * values / cap) - 1.0), float("-inf"))
        top = tl.maximum(largest, tl.max(values, 0))
        total = total * tl.exp(largest - top) + tl.sum(tl.exp(values - top), 0)
        largest = top
    label, weight = tl.load(labels + row), tl.load(weights + row)
    picked = tl.load(start + label).to(tl.float32)
    if CAPPED:
        picked = cap * (2.0 * tl.sigmoid(2.0 * picked / cap) - 1.0)
    tl.store(losses + row, weight * (tl.log(total) + largest - picked))
    if SLOPE:
        for begin in range(0, vocab, BLOCK):
            at = begin + tl.arange(0, BLOCK)
            values = tl.load(start + at, mask=at < vocab, other=0.0).to(tl.float32)
            factor = weight
            if CAPPED:
                tanh = 2.0 * tl.sigmoid(2.0 * values / cap) - 1.0
                values, factor = cap * tanh, weight * (1.0 - tanh * tanh)
            slope = factor * (tl.exp(values - largest) / total - tl.where(at == label, 1.0, 0.0))
            tl.store(start + at, slope.to(logits.dtype.element_ty), mask=at < vocab)


def cross_entropy(logits_LV: Tensor, labels_L: Tensor, weights_L: Tensor, cap: float | None, *, slope: bool) -> Tensor:
    """The weighted cross-entropy of each row (L), float32; with `slope`, its gradient replaces the logits."""
    losses_L = torch.empty(len(labels_L), device=logits_LV.device, dtype=torch.float32)
    _cross_entropy[(len(labels_L),)](
        logits_LV, labels_L, weights_L, losses_L, logits_LV.stride(0), cap or 1.0, logits_LV.shape[1],
        CAPPED=cap is not None, SLOPE=slope, BLOCK=4096, num_warps=8,
    )  # fmt: skip
    return losses_L


@triton.jit
def _drop(x, out, add, width, x_t, seed, struck, scale, ADD: tl.constexpr, BLOCK: tl.constexpr):
    token, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    values = tl.load(x + token * x_t + at, mask=real).to(tl.float32)
    kept = tl.rand(tl.load(seed), token * width + at) >= struck
    values = tl.where(kept, values * scale, 0.0)
    if ADD:
        values += tl.load(add + token * width + at, mask=real).to(tl.float32)
    tl.store(out + token * width + at, values.to(out.dtype.element_ty), mask=real)


_DROP_BLOCK = 2048


def drop(x_TD: Tensor, seed: Tensor, share: float, add_TD: Tensor | None = None) -> Tensor:
    """x / (1 - share) with a share of its elements dropped, chosen by the seed alone, plus `add_TD` (contiguous).

    Args:
        seed: an int32 on the device, so that a captured graph can be replayed with others.
    """
    tokens, width = x_TD.shape
    out_TD = torch.empty(tokens, width, device=x_TD.device, dtype=x_TD.dtype)
    grid = (tokens, triton.cdiv(width, _DROP_BLOCK))
    other = out_TD if add_TD is None else add_TD
    _drop[grid](
        x_TD,
        out_TD,
        other,
        width,
        x_TD.stride(0),
        seed,
        share,
        1 / (1 - share),
        ADD=add_TD is not None,
        BLOCK=_DROP_BLOCK,
    )
    return out_TD
