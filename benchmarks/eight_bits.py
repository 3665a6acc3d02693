"""Do frozen products in eight bits train as well as bfloat16? Loss, gradients and training of the demo's run, emulated.

    python benchmarks/eight_bits.py FOLDER [--variants "int8 rows" …] [--train] [--speed]

FOLDER is that of `journeyman demo`. Weights are quantized once for each of the two products with them (y = x Wᵀ and
dx = g W), activations and gradients when they are multiplied; values are rounded as the format would and multiplied in
float32. The low-rank update, the head and everything else stay as they are. The table has the loss on the validation
rows before training, the cosine between the gradient of the adapter and that of float32 (one step's rows, the run's
adapter with B halved), and with --train the loss after each half of the run. --speed measures the products instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import read_rows
from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder, LayerLora, LayerWeights
from journeyman.models.opening import find_base, open_base
from journeyman.models.operations import CpuOperations
from journeyman.models.weights import load_decoder
from journeyman.records import Example
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.training.batches import pack, rows_of_step, steps_per_epoch
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack
from journeyman.training.loop import learning_rate

SETTINGS = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-3)
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


VARIANTS = {
    "bf16": Variant(""),
    "int8 rows": Variant(),
    "int8 rows, forward only": Variant(backward=False),
    "int8 rows, backward only": Variant(forward=False),
    "int8 rows, but down": Variant(but=("down_proj",)),
    "int8 1 column apart": Variant(apart=1),
    "int8 4 columns apart": Variant(apart=4),
    "int8 16 columns apart": Variant(apart=16),
    "int8 above 6 apart": Variant(above=6.0),
    "int8 blocks of 128": Variant(block=128),
    "int8 blocks of 64": Variant(block=64),
    "int8 blocks of 32": Variant(block=32),
    "int8 blocks of 64, 4 columns apart": Variant(block=64, apart=4),
    "int8 smooth 0.5": Variant(smooth=0.5),
    "int8 smooth 0.75": Variant(smooth=0.75),
    "int8 smooth 0.5, 4 columns apart": Variant(smooth=0.5, apart=4),
    "int8 smooth 0.5, forward only": Variant(smooth=0.5, backward=False),
    "fp8 smooth 0.5": Variant("fp8", smooth=0.5),
    "fp8 rows": Variant("fp8"),
    "fp8 rows, forward only": Variant("fp8", backward=False),
    "fp8 rows, backward only": Variant("fp8", forward=False),
}


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
        return (
            product(x / made.spread, weight * made.spread, made.forward, variant).to(x.dtype)
            if variant.forward
            else x @ weight.T
        )

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


class Study:
    """The demo's rows, its base, and its adapter."""

    def __init__(self, run: Path) -> None:
        self._base = open_base(find_base("embedded", Path()))
        renderer = Renderer(self._base)
        self.rows, self._held = (
            [renderer.example(row) for row in read_rows(run / f"02-dataset/{name}.jsonl", Example)]
            for name in ("train", "val")
        )
        self._adapter = {
            name: value / 2 if "lora_B" in name else value
            for name, value in load_file(run / "04-adapter/adapter_model.safetensors").items()
        }
        self._loaded = {kind: load_decoder(self._base, kind) for kind in (torch.bfloat16, torch.float32)}
        noted = Columns()
        self.loss(
            CpuEngine(Decoder(self._base.geometry, self._loaded[torch.bfloat16].weights, noted), SETTINGS),
            self.rows[-8:],
        )
        self._largest = noted.largest
        self._exact = self.gradient(Variant(""), torch.float32)

    def engine(self, variant: Variant, kind: torch.dtype = torch.bfloat16) -> CpuEngine:
        loaded = self._loaded[kind]
        return CpuEngine(Decoder(loaded.geometry, loaded.weights, EightBits(variant, self._largest)), SETTINGS)

    def loss(self, engine: CpuEngine, rows: Sequence[Rendered] = ()) -> float:
        return engine.evaluate(pack(rows or self._held, 2048), lambda _: None).mean

    def step(self, engine: CpuEngine, number: int) -> None:
        chosen: list[Rendered] = [self.rows[i] for i in rows_of_step(number, len(self.rows), 4, SETTINGS.seed)]
        packs = pack(chosen, 2048)
        labels = sum(one.label_weight for one in packs)
        engine.accumulate([KeyedPack(one, f"{number}/{n}") for n, one in enumerate(packs)], labels, lambda _: None)

    def gradient(self, variant: Variant, kind: torch.dtype = torch.bfloat16) -> Tensor:
        engine = self.engine(variant, kind)
        engine.load_state({f"adapter/{name}": value for name, value in self._adapter.items()})
        for number in range(3):
            self.step(engine, number)
        found = {name: value for name, value in engine.state().items() if name.startswith("gradient/")}
        return torch.cat([found[name].flatten() for name in sorted(found)])

    def cosine(self, variant: Variant) -> float:
        return torch.nn.functional.cosine_similarity(self.gradient(variant), self._exact, dim=0).item()

    def train(self, variant: Variant) -> Iterator[float]:
        engine, total = self.engine(variant), steps_per_epoch(len(self.rows), 4)
        for number in range(total):
            if number == -(-total // 2):
                yield self.loss(engine)
            self.step(engine, number)
            engine.clip(SETTINGS.max_grad_norm)
            engine.step(learning_rate(number, total, SETTINGS))
        yield self.loss(engine)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--train", action="store_true", help="train too: several minutes for each variant")
    parser.add_argument("--speed", action="store_true", help="measure products of 2,048 tokens instead")
    options = parser.parse_args()
    if options.speed:
        speed(2048)
        return
    study = Study(options.folder)
    for name in options.variants:
        variant = VARIANTS[name]
        line = f"{name:36} before {study.loss(study.engine(variant)):8.4f}  cosine {study.cosine(variant):.4f}"
        trained = "  trained " + ", ".join(f"{one:.4f}" for one in study.train(variant)) if options.train else ""
        print(line + trained, flush=True)


if __name__ == "__main__":
    main()
