"""The GPU's engine computes what the CPU's engine computes. Here it runs on the CPU, without its kernels."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import journeyman.training.gpu
from conftest import write_tiny_gguf
from journeyman.config import LoraConfig, TrainConfig
from journeyman.errors import InputError
from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.models.weights import load_decoder
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.captured import CapturedPasses, padded, rounded_up
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.gpu import GpuEngine
from journeyman.training.gradients import AdaptedPack
from journeyman.training.unpacking import rows_of

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
@pytest.mark.parametrize("way", ["captured", "keep", "recompute"])
def test_training_equals_that_on_the_cpu(
    architecture: str, targets: list[str], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "captured":
        monkeypatch.setattr(journeyman.training.gpu, "MOST_CAPTURED", 0)
    file, config = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture)), _config(targets=targets)
    cpu = CpuEngine(load_decoder(file, torch.float32), config)
    gpu = GpuEngine(load_on_gpu(file, torch.float32, torch.device("cpu")), config, recompute=way == "recompute")
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


def test_no_garbage_is_collected_while_a_pass_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of an earlier engine may be in it; CUDA ends the capture if one is destroyed."""
    seen = list[bool]()
    captured = CapturedPasses.__new__(CapturedPasses)
    captured._pool = None
    monkeypatch.setattr(captured, "_compute", lambda inputs: seen.append(gc.isenabled()))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(pool=lambda: 1))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: nullcontext())
    for name in ("empty_cache", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    captured._capture(None)  # type: ignore[arg-type]
    assert seen == [False] and gc.isenabled()


def test_it_has_what_the_training_loop_needs() -> None:
    assert {name for name in vars(TrainingEngine) if not name.startswith("_")} <= set(dir(GpuEngine))


@pytest.fixture
def no_model_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journeyman.training.gpu, "MOST_CAPTURED", 0)


@pytest.mark.usefixtures("no_model_is_small")
@pytest.mark.parametrize("limit", [100, 69])
def test_a_step_that_runs_out_of_memory_is_computed_with_less(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "llama")), _config()
    decoder, said = load_on_gpu(file, torch.float32, torch.device("cpu")), list[str]()
    plain, scarce = GpuEngine(decoder, config), GpuEngine(decoder, config, say=said.append)
    packs = pack(_rows(), 120)
    keyed, labels = [KeyedPack(one, str(n)) for n, one in enumerate(packs)], sum(one.label_weight for one in packs)
    wanted = plain.accumulate(keyed, labels, lambda _: None).loss
    plain.clip(1.0)
    plain.step(1e-2)
    held = plain.evaluate(packs, lambda _: None).loss
    for name in ("keep", "recompute", "loss_only"):
        _runs_out(monkeypatch, name, limit)
    heard = list[float]()
    assert scarce.accumulate(keyed, labels, heard.append).loss == pytest.approx(wanted, rel=1e-6)
    assert heard[-1] == sum(one.row_tokens for one in packs)
    assert "layers are recomputed" in said[0] and "packs have at most 69 tokens" in said[1] and len(said) == 2
    scarce.clip(1.0)
    scarce.step(1e-2)
    assert scarce.evaluate(packs, lambda _: None).loss == pytest.approx(held, rel=1e-5)
    theirs = plain.adapter()
    for name, value in scarce.adapter().items():
        assert torch.allclose(value, theirs[name], rtol=1e-3, atol=2e-5), name


@pytest.mark.usefixtures("no_model_is_small")
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "llama"))
    engine = GpuEngine(load_on_gpu(file, torch.float32, torch.device("cpu")), _config())
    (one,) = pack(_rows(1), 120)
    for name in ("keep", "recompute"):
        _runs_out(monkeypatch, name, 0)
    with pytest.raises(InputError, match=r"for one row of 10 tokens \(CUDA out of memory. Tried to allocate 2 GiB\)"):
        engine.accumulate([KeyedPack(one, "0")], one.label_weight, lambda _: None)
    assert not any(name.startswith("gradient/") for name in engine.state())


def _runs_out(monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    """Makes a way to compute gradients run out of memory above some tokens, half-way through the first step."""
    real = getattr(journeyman.training.gpu, name)

    def scarce(decoder: Decoder, parts: list[AdaptedPack], *others: Any) -> float:
        if max(len(part.pack.ids_T) for part in parts) > limit:
            real(decoder, parts, *others)  # gradients that must not stay
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total capacity")
        return float(real(decoder, parts, *others))

    monkeypatch.setattr(journeyman.training.gpu, name, scarce)


def test_padding_changes_nothing_but_sizes() -> None:
    for one in pack(_rows(), 200):
        wide = padded(one)
        assert len(wide.ids_T) == rounded_up(len(one.ids_T), 8)
        assert len(wide.labels_L) == rounded_up(len(one.labels_L), 2)
        assert sum(wide.lengths) == len(wide.ids_T) and wide.label_weight == one.label_weight
        assert [(len(row.ids_T), row.labels_L.tolist()) for row in rows_of(one)] == [
            (len(row.ids_T), row.labels_L.tolist())
            for row in rows_of(replace(wide, source_L=wide.source_L[: len(one.source_L)],
                                       labels_L=one.labels_L, weights_L=one.weights_L))
        ]  # fmt: skip


@pytest.mark.parametrize(("count", "sizes", "size"), [
    (1, 8, 128), (128, 8, 128), (129, 8, 256), (1025, 8, 1152), (8000, 8, 8192), (8193, 8, 9216), (6000, 2, 6144),
    (6145, 2, 8192),
])  # fmt: skip
def test_sizes_are_few(count: int, sizes: int, size: int) -> None:
    assert rounded_up(count, sizes) == size == rounded_up(size, sizes)


def test_dropout_is_the_same_however_a_pass_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, config = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "llama")), _config(dropout=0.3)
    decoder = load_on_gpu(file, torch.float32, torch.device("cpu"))
    (one,) = pack(_rows(3), 128)
    one = padded(one)  # dropped elements depend on their place
    losses = []
    for largest in (0, 10**9):
        monkeypatch.setattr(journeyman.training.gpu, "MOST_CAPTURED", largest)
        engine = GpuEngine(decoder, config)
        for step in range(3):
            losses.append(engine.accumulate([KeyedPack(one, f"{step}/0")], one.label_weight, lambda _: None).loss)
            engine.clip(1.0)
            engine.step(1e-2)
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-5)
