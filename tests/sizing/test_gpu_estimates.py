"""Estimates for GPUs, compared with what was measured on an H200 (benchmarks/README.md)."""

from __future__ import annotations

import pytest

from journeyman.config import LoraConfig
from journeyman.models.geometry import Geometry
from journeyman.sizing.duration import _COMPILE_S, gpu_training_seconds
from journeyman.sizing.gpu_memory import gpu_layer_bytes_per_token, gpu_training_bytes
from journeyman.sizing.memory import TrainingSize
from journeyman.sizing.parameters import lora_parameters

QKV = ("q_proj", "k_proj", "v_proj")
B7 = Geometry("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV)
B14 = Geometry("qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV)
SMOL = Geometry("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, 1e-5, tied_head=True)
EVERY, ATTENTION = LoraConfig().targets, [*QKV, "o_proj"]
RATES = 796e3, 4.3e12
UNSEEN = 400 << 20
"""What torch's allocator, which was asked for the peaks, does not know of."""


def _bytes(geometry: Geometry, rank: int, targets: list[str], tokens: int, longest: int = 690, stored: int = 0) -> int:
    size = TrainingSize(geometry, lora_parameters(geometry, rank, targets), 2, longest)
    way = "stream" if stored else "keep"
    return gpu_training_bytes(size, way, tokens, tokens, targets, stored_bytes=stored) - UNSEEN  # type: ignore[arg-type]


@pytest.mark.parametrize(("geometry", "rank", "targets", "tokens", "longest", "peak_gb"), [
    (B7, 16, EVERY, 8886, 690, 58.7),
    (B7, 16, EVERY, 16384, 4096, 102.6),
    (B7, 16, EVERY, 4096, 512, 36.66),
    (B14, 16, EVERY, 4096, 512, 64.37),
])  # fmt: skip
def test_the_peak_of_kept_activations(
    geometry: Geometry, rank: int, targets: list[str], tokens: int, longest: int, peak_gb: float
) -> None:
    assert _bytes(geometry, rank, targets, tokens, longest) == pytest.approx(peak_gb * 1e9, rel=0.05)


@pytest.mark.parametrize(("geometry", "blocks_gb", "tokens", "peak_gb"), [
    (B7, 4.68, 2048, 7.45), (B7, 4.68, 4096, 8.27), (B14, 8.98, 4096, 14.30),
])  # fmt: skip
def test_the_peak_with_blocks(geometry: Geometry, blocks_gb: float, tokens: int, peak_gb: float) -> None:
    stored = int(blocks_gb * 1e9) + 2 * (geometry.layer_parameters + (1 << 25))
    assert _bytes(geometry, 16, EVERY, tokens, 512, stored) == pytest.approx(peak_gb * 1e9, rel=0.1)


@pytest.mark.parametrize(("geometry", "targets", "tokens", "row", "seconds"), [
    (B7, EVERY, 7624, 510, 0.396), (B7, ATTENTION, 8320, 510, 0.424), (B14, EVERY, 8100, 510, 0.836),
    (B7, EVERY, 16384, 4096, 0.96),
])  # fmt: skip
def test_the_time_of_steps(geometry: Geometry, targets: list[str], tokens: int, row: int, seconds: float) -> None:
    kept, steps = gpu_layer_bytes_per_token(geometry, 2, targets), 100
    found = gpu_training_seconds(geometry, kept, steps * tokens, row, steps, *RATES)
    assert found - _COMPILE_S == pytest.approx(steps * seconds, rel=0.12)


def test_short_runs_of_small_models_take_as_long_as_python_does() -> None:
    kept = gpu_layer_bytes_per_token(SMOL, 2, EVERY)
    found = gpu_training_seconds(SMOL, kept, 30_030, 132, 57, *RATES)
    assert found == pytest.approx(7.1 + 6, rel=0.3), "57 steps in 7.1 s, and the rest of a stage of 13 s"
    long = gpu_training_seconds(SMOL, kept, 7_800_000, 500, 1000, *RATES)
    assert long == pytest.approx(1000 * 0.036, rel=0.3), "replayed"
