"""The GPU's engine computes what the CPU's engine computes. Here it runs on the CPU, without its kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.gpu import GpuEngine, load_on_gpu

SOME = ["q_proj", "v_proj", "up_proj"]
EVERY = LoraConfig().targets


def _rows(count: int = 6) -> list[Rendered]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randint(3, 200, (24,), generator=generator).tolist()
    rows = []
    for number in range(count):
        own = torch.randint(3, 200, (10 + 7 * number,), generator=generator).tolist()
        rows.append(Rendered(shared + own if number % 2 else own, 6 + 24 * (number % 2), weight=1.0 + number % 3))
    return rows


def _config(**lora: Any) -> TrainConfig:
    return TrainConfig(lora=LoraConfig(**{"rank": 3, "alpha": 6, "targets": EVERY, **lora}))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("targets", [EVERY, SOME])
@pytest.mark.parametrize("again", [False, True])
def test_training_equals_that_on_the_cpu(architecture: str, targets: list[str], again: bool, tmp_path: Path) -> None:
    file, config = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture)), _config(targets=targets)
    cpu = CpuEngine(load_decoder(file, torch.float32), config)
    gpu = GpuEngine(load_on_gpu(file, torch.float32, torch.device("cpu")), config, recompute=again)
    packs = pack(_rows(), 80)
    keyed, labels = [KeyedPack(one, str(n)) for n, one in enumerate(packs)], sum(one.label_weight for one in packs)
    for _ in range(4):
        losses = [engine.accumulate(keyed, labels, lambda _: None).loss for engine in (cpu, gpu)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert gpu.clip(0.5) == pytest.approx(cpu.clip(0.5), rel=1e-4)
        for engine in (cpu, gpu):
            engine.step(1e-2)
    theirs = cpu.adapter()
    for name, value in gpu.adapter().items():
        assert torch.allclose(value, theirs[name], rtol=1e-3, atol=2e-5), name
    assert gpu.evaluate(packs, lambda _: None).loss == pytest.approx(cpu.evaluate(packs, lambda _: None).loss, rel=1e-5)


def test_it_has_what_the_training_loop_needs() -> None:
    assert {name for name in vars(TrainingEngine) if not name.startswith("_")} <= set(dir(GpuEngine))
