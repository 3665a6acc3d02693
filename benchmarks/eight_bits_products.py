"""Products with frozen matrices in eight bits: emulated in every variant of eight_bits.py, some as they would run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from journeyman.models.decoder import LayerLora, LayerWeights
from journeyman.models.operations import CpuOperations

MOST = {"int8": 127.0, "fp8": 448.0}


@dataclass(frozen=True)
class Variant:
    """How a product is quantized.

    Attributes:
        kind: int8 or fp8 (float8_e4m3fn); "": not at all.
        block: elements of the summed axis that share a scale; 0: all of them.
        apart: columns of the left factor with the largest values that are multiplied in bfloat16.
        above: columns with a value above this are multiplied in bfloat16; 0: none.
        smooth: how much of the size of each input column moves from activations into the weights, from 0 to 1, for
            the forward product (SmoothQuant: Xiao et al., 2022, arXiv 2211.10438); columns measured on other rows.
        forward, backward: which of the two products are quantized.
        but: modules that are not.
    """

    kind: str = "int8"
    block: int = 0
    apart: int = 0
    above: float = 0.0
    smooth: float = 0.0
    forward: bool = True
    backward: bool = True
    but: tuple[str, ...] = ()


def rounded(matrix: Tensor, kind: str, block: int) -> Tensor:
    """The matrix with each row, or each block of it, rounded to the values that the format can hold."""
    rows, columns = matrix.shape
    size = block or columns
    filled = torch.nn.functional.pad(matrix.float(), (0, -columns % size)).view(rows, -1, size)
    scale = filled.abs().amax(-1, keepdim=True).clamp(min=1e-12) / MOST[kind]
    scaled = filled / scale
    values = scaled.round() if kind == "int8" else scaled.to(torch.float8_e4m3fn).float()
    return (values * scale).view(rows, -1)[:, :columns]


def product(left: Tensor, weight: Tensor, quantized: Tensor, variant: Variant) -> Tensor:
    """left @ weightᵀ, in the left factor's type."""
    largest = left.abs().amax(0)
    apart = largest > variant.above if variant.above else torch.zeros_like(largest, dtype=torch.bool)
    if variant.apart:
        apart[largest.topk(variant.apart).indices] = True
    most = rounded(left.masked_fill(apart, 0.0), variant.kind, variant.block) @ quantized.T
    return (most + left[:, apart].float() @ weight[:, apart].float().T).to(left.dtype)


@dataclass(frozen=True)
class Quantized:
    """W with its input columns multiplied by `spread`, and Wᵀ, both as rounded values."""

    forward: Tensor
    spread: Tensor
    turned: Tensor


class Frozen(torch.autograd.Function):
    """x Wᵀ with a frozen W, in eight bits where the variant says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, made: Quantized, variant: Variant) -> Tensor:
        ctx.weight, ctx.turned, ctx.variant = weight, made.turned, variant
        if not variant.forward:
            return x @ weight.T
        return product(x / made.spread, weight * made.spread, made.forward, variant).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (g,), variant = gradients, ctx.variant
        return product(g, ctx.weight.T, ctx.turned, variant) if variant.backward else g @ ctx.weight, None, None, None


class EightBits(CpuOperations):
    """The operations of the CPU with frozen products as a variant says."""

    def __init__(self, variant: Variant, largest: dict[int, Tensor]) -> None:
        self._variant, self._largest = variant, largest
        self._made: dict[int, Quantized] = {}

    def project(self, x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
        if not self._variant.kind:
            return super().project(x, modules, layer, adapters)
        return [self._one(x, module, layer, adapters) for module in modules]

    def _one(self, x: Tensor, module: str, layer: LayerWeights, adapters: LayerLora) -> Tensor:
        weight, pair, variant = layer.linear[module], adapters.get(module), self._variant
        if module in variant.but:
            y = x @ weight.T
        else:
            if id(weight) not in self._made:
                self._made[id(weight)] = self._quantized(weight)
            y = Frozen.apply(x, weight, self._made[id(weight)], variant)  # type: ignore[no-untyped-call]
        if pair is None:
            return y
        return y + (x @ pair.a_RI.to(x.dtype).T) @ (pair.b_OR * pair.scale).to(x.dtype).T

    def _quantized(self, weight: Tensor) -> Quantized:
        variant, spread = self._variant, torch.ones(weight.shape[1])
        if variant.smooth:
            sizes = weight.float().abs().amax(0).clamp(min=1e-5)
            spread = self._largest[id(weight)].clamp(min=1e-5) ** variant.smooth / sizes ** (1 - variant.smooth)
        forward = rounded(weight * spread, variant.kind, variant.block)
        return Quantized(forward, spread, rounded(weight.T, variant.kind, variant.block))


class Columns(CpuOperations):
    """Notes the largest value in each input column of each matrix."""

    def __init__(self) -> None:
        self.largest: dict[int, Tensor] = {}

    def project(self, x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
        for module in modules:
            key, found = id(layer.linear[module]), x.float().abs().amax(0)
            self.largest[key] = torch.maximum(found, self.largest.get(key, found))
        return super().project(x, modules, layer, adapters)


def in_integers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale = matrix.abs().amax(1, keepdim=True).float().clamp_(min=1e-12) / MOST["int8"]
    return (matrix / scale).round_().to(torch.int8), scale


def in_blocks(x: Tensor, w: Tensor, small_w: Tensor, scale_w: Tensor, size: int = 0) -> Tensor:
    """The product as it would run: each block quantized, multiplied as integers, scaled and added in float32."""
    total = None
    for start in range(0, x.shape[1], size or x.shape[1]):
        part = slice(start, start + (size or x.shape[1]))
        small, scale = in_integers(x[:, part])
        made = torch._int_mm(small, small_w[:, part].T).float().mul_(scale)
        total = made.mul_(scale_w.T) if total is None else total.addcmul_(made, scale_w.T)
    assert total is not None
    return total.bfloat16()


def columns_apart(x: Tensor, w: Tensor, small_w: Tensor, scale_w: Tensor) -> Tensor:
    columns = x.abs().amax(0).topk(4).indices
    return in_blocks(x.index_fill(1, columns, 0.0), w, small_w, scale_w).addmm_(x[:, columns], w[:, columns].T)


def speed(tokens: int) -> None:
    """How many times as fast as in bfloat16 the products of SmolLM2-135M's layers are; the best of 20 turns of each."""
    turns: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
        "bf16": lambda x, w, *_: x @ w.T,
        "int8 alone": lambda _, w, small_w, scale_w: torch._int_mm(small_w.new_ones(tokens, w.shape[1]), small_w.T),
        "rows": in_blocks,
        "4 columns apart": columns_apart,
        "blocks of 64": partial(in_blocks, size=64),
    }
    for inputs, outputs in ((576, 960), (576, 576), (576, 3072), (1536, 576)):
        x, w = (torch.randn(rows, inputs).bfloat16() for rows in (tokens, outputs))
        small_w, scale_w = in_integers(w)
        best = dict.fromkeys(turns, float("inf"))
        for _ in range(20):
            for name, turn in turns.items():
                begun = time.perf_counter()
                turn(x, w, small_w, scale_w)
                best[name] = min(best[name], time.perf_counter() - begun)
        rate = 2 * tokens * inputs * outputs / best["bf16"] / 1e9
        ratios = ", ".join(f"{name} {best['bf16'] / taken:.2f}" for name, taken in best.items() if name != "bf16")
        print(f"{inputs} to {outputs}: bf16 {rate:.0f} GFLOP/s; times as fast: {ratios}", flush=True)
