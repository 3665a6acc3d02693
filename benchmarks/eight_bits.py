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
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from eight_bits_products import Columns, EightBits, Variant, speed
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import read_rows
from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.models.opening import find_base, open_base
from journeyman.models.weights import load_decoder
from journeyman.records import Example
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.training.batches import pack, rows_of_step, steps_per_epoch
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack
from journeyman.training.loop import learning_rate

SETTINGS = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-3)
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
    "fp8 16 columns apart": Variant("fp8", apart=16),
    "int8 smooth 0.5, 16 columns apart": Variant(smooth=0.5, apart=16),
    "fp8 rows": Variant("fp8"),
    "fp8 rows, forward only": Variant("fp8", backward=False),
    "fp8 rows, backward only": Variant("fp8", forward=False),
}


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
