"""Triton kernels for the activation of the gated feed-forward network, with the low-rank updates beside it.

Letters as in models.gpu.kernels; R and S ranks.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,import-not-found,import-untyped"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from journeyman.models.gpu.eight_kernels import Eight, in_eight_bits
from journeyman.models.gpu.kernels import VARYING


@triton.jit
def _activate(gate, GELU: tl.constexpr):
    """The activation of the gate and its slope."""
    if GELU:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        tanh = 2.0 * tl.sigmoid(2.0 * inner) - 1.0
        slope = 0.7978845608028654 * (1.0 + 0.134145 * gate * gate)
        return 0.5 * gate * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * gate * (1.0 - tanh * tanh) * slope
    sigmoid = tl.sigmoid(gate)
    return gate * sigmoid, sigmoid * (1.0 + gate * (1.0 - sigmoid))


@triton.jit
def _gate_up_of(raw, low, b, rows, at, ranks, WIDTH: tl.constexpr, R: tl.constexpr, ADAPTED: tl.constexpr, real):
    """Gate and up of a tile, float32: the frozen product plus the low-rank update low · bᵀ."""
    place = raw + rows[:, None].to(tl.int64) * (2 * WIDTH) + at[None, :]
    gate = tl.load(place, mask=real, other=0.0).to(tl.float32)
    up = tl.load(place + WIDTH, mask=real, other=0.0).to(tl.float32)
    if ADAPTED:
        columns = b + at[None, :] * R + ranks[:, None]
        inside = (at < WIDTH)[None, :] & (ranks < R)[:, None]
        gate = tl.dot(low, tl.load(columns, mask=inside, other=0.0), gate, input_precision="ieee")
        up = tl.dot(low, tl.load(columns + WIDTH * R, mask=inside, other=0.0), up, input_precision="ieee")
    return gate, up


@triton.jit(do_not_specialize=VARYING)
def _gate_forward(raw, low_TR, b, out, largest, tokens, GELU: tl.constexpr, ADAPTED: tl.constexpr, EIGHT: tl.constexpr,
                  WIDTH: tl.constexpr, R: tl.constexpr, RANKS: tl.constexpr, ROWS: tl.constexpr,
                  BLOCK: tl.constexpr):  # fmt: skip
    rows, ranks = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, RANKS)
    at, row_real = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), rows < tokens
    real = row_real[:, None] & (at < WIDTH)[None, :]
    low_at = low_TR + rows[:, None].to(tl.int64) * R + ranks[None, :]
    low = tl.load(low_at, mask=row_real[:, None] & (ranks < R)[None, :], other=0.0)
    gate, up = _gate_up_of(raw, low, b, rows, at, ranks, WIDTH, R, ADAPTED, real)
    active, _ = _activate(gate, GELU)
    made = (active * up).to(out.dtype.element_ty)
    tl.store(out + rows[:, None].to(tl.int64) * WIDTH + at[None, :], made, mask=real)
    if EIGHT:
        tl.atomic_max(largest + rows, tl.max(tl.where(real, tl.abs(made.to(tl.float32)), 0.0), 1), mask=row_real)


@triton.jit(do_not_specialize=VARYING)
def _gate_backward(g, slope_TS, a, raw, low_TR, b, out, largest, tokens, GELU: tl.constexpr, ADAPTED: tl.constexpr,
                   DOWN: tl.constexpr, EIGHT: tl.constexpr, WIDTH: tl.constexpr, R: tl.constexpr, RANKS: tl.constexpr,
                   S: tl.constexpr, SLOPES: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    rows, ranks, slopes = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, RANKS), tl.arange(0, SLOPES)
    at, row_real = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), rows < tokens
    real = row_real[:, None] & (at < WIDTH)[None, :]
    low_at = low_TR + rows[:, None].to(tl.int64) * R + ranks[None, :]
    low = tl.load(low_at, mask=row_real[:, None] & (ranks < R)[None, :], other=0.0)
    gate, up = _gate_up_of(raw, low, b, rows, at, ranks, WIDTH, R, ADAPTED, real)
    g_out = tl.load(g + rows[:, None].to(tl.int64) * WIDTH + at[None, :], mask=real, other=0.0).to(tl.float32)
    if DOWN:
        slope_at = slope_TS + rows[:, None].to(tl.int64) * S + slopes[None, :]
        down = tl.load(slope_at, mask=row_real[:, None] & (slopes < S)[None, :], other=0.0)
        inside = (slopes < S)[:, None] & (at < WIDTH)[None, :]
        columns = tl.load(a + slopes[:, None] * WIDTH + at[None, :], mask=inside, other=0.0)
        g_out = tl.dot(down, columns, g_out, input_precision="ieee")
    active, slope = _activate(gate, GELU)
    place = out + rows[:, None].to(tl.int64) * (2 * WIDTH) + at[None, :]
    of_gate = (g_out * up * slope).to(out.dtype.element_ty)
    of_up = (g_out * active).to(out.dtype.element_ty)
    tl.store(place, of_gate, mask=real)
    tl.store(place + WIDTH, of_up, mask=real)
    if EIGHT:
        both = tl.maximum(tl.abs(of_gate.to(tl.float32)), tl.abs(of_up.to(tl.float32)))
        tl.atomic_max(largest + rows, tl.max(tl.where(real, both, 0.0), 1), mask=row_real)


_FORWARD = {"ROWS": 64, "BLOCK": 64, "num_warps": 4}
_BACKWARD = {"ROWS": 32, "BLOCK": 64, "num_warps": 4}
"""Fastest of those tried on an H200, at 18,944 columns."""


def _grid(width: int, tokens: int, tile: dict[str, int]) -> tuple[int, int]:
    return triton.cdiv(width, tile["BLOCK"]), triton.cdiv(tokens, tile["ROWS"])


def _thin(thin: Tensor | None) -> tuple[int, int]:
    """The ranks of a low-rank factor, and the width of the tile that holds them."""
    ranks = 1 if thin is None else thin.shape[1]
    return ranks, max(16, triton.next_power_of_2(ranks))


def gate_forward(
    raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None, *, gelu: bool, eight: bool
) -> tuple[Tensor, Eight | None]:
    """activation(gate) · up (T, F), where gate and up, side by side (T, 2F), are raw + low bᵀ; also in eight bits."""
    tokens, width = len(raw), raw.shape[1] // 2
    out_TF = torch.empty(tokens, width, device=raw.device, dtype=raw.dtype)
    largest_T = torch.zeros(tokens if eight else 1, device=raw.device)
    ranks, tile = _thin(low_TR)
    _gate_forward[_grid(width, tokens, _FORWARD)](
        raw, raw if low_TR is None else low_TR, raw if b_OR is None else b_OR, out_TF,
        largest_T, tokens, GELU=gelu, ADAPTED=low_TR is not None, EIGHT=eight, WIDTH=width, R=ranks,
        RANKS=tile, **_FORWARD,
    )  # fmt: skip
    return out_TF, in_eight_bits(out_TF, largest_T) if eight else None


def gate_backward(
    g_TF: Tensor, slope_TS: Tensor | None, a_SF: Tensor | None, raw: Tensor, low_TR: Tensor | None, b_OR: Tensor | None,
    *, gelu: bool, eight: bool,
) -> tuple[Tensor, Eight | None]:  # fmt: skip
    """The gradient of gate and up, side by side (T, 2F); that of gate_forward's result is g + slope · a."""
    tokens, width = g_TF.shape
    out = torch.empty(tokens, 2 * width, device=raw.device, dtype=raw.dtype)
    largest_T = torch.zeros(tokens if eight else 1, device=raw.device)
    (ranks, tile), (slopes, slope_tile) = _thin(low_TR), _thin(slope_TS)
    _gate_backward[_grid(width, tokens, _BACKWARD)](
        g_TF, raw if slope_TS is None else slope_TS, raw if a_SF is None else a_SF, raw,
        raw if low_TR is None else low_TR, raw if b_OR is None else b_OR, out, largest_T, tokens,
        GELU=gelu, ADAPTED=low_TR is not None, DOWN=slope_TS is not None, EIGHT=eight, WIDTH=width, R=ranks, RANKS=tile,
        S=slopes, SLOPES=slope_tile, **_BACKWARD,
    )  # fmt: skip
    return out, in_eight_bits(out, largest_T) if eight else None
