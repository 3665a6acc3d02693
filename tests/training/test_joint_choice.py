"""How several adapters are trained on a processor: what the price of passes suggests, and what fits in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import write_tiny_gguf
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.sizing.memory import MemoryWay, TrainingSize, training_bytes
from journeyman.training.joint_choice import JobSize, Machine, Together, choose_together, last_ends

TWO_CORES = Machine(2, 390, 1e12)


def _size(folder: Path, hidden: int = 576) -> TrainingSize:
    """The geometry of SmolLM2-135M, or one of another width."""
    tiny = GgufFile(write_tiny_gguf(folder / "m.gguf")).geometry
    sizes: Geometry = replace(
        tiny, hidden=hidden, layers=30, heads=9, kv_heads=3, head_dim=hidden // 9, ffn=8 * hidden // 3, vocab=49152
    )
    return TrainingSize(sizes, 0, 2, 700)


def _jobs(count: int, tokens: int, pack: int = 2048) -> list[JobSize]:
    return [JobSize(2_000_000, 7, tokens, pack, pack)] * count


def test_small_passes_of_a_narrow_base_share_the_cores(tmp_path: Path) -> None:
    made = choose_together(_size(tmp_path), "keep", _jobs(8, 500), TWO_CORES)
    assert (made.at_once, made.way) == (2, "cores")
    assert 1.2 < made.speedup < 1.5


def test_more_cores_more_adapters(tmp_path: Path) -> None:
    made = choose_together(_size(tmp_path), "keep", _jobs(8, 500), replace(TWO_CORES, cores=16, gflops=3000))
    assert (made.at_once, made.way) == (8, "cores")
    assert made.speedup > 3


def test_on_one_core_they_take_turns_or_share_the_passes_that_cost_most(tmp_path: Path) -> None:
    one_core = replace(TWO_CORES, cores=1)
    assert choose_together(_size(tmp_path), "keep", _jobs(8, 200, pack=400), one_core).at_once == 1
    made = choose_together(_size(tmp_path), "recompute", _jobs(8, 200, pack=400), one_core)
    assert made.way == "batch"
    assert made.at_once > 2
    assert made.most_tokens == round(1.5 * made.at_once * 200)


def test_layers_that_are_dequantized_are_shared_in_a_batch(tmp_path: Path) -> None:
    made = choose_together(_size(tmp_path, 4608), "stream", _jobs(8, 200), TWO_CORES)
    assert made.way == "batch"
    assert made.speedup > 1.3


@pytest.mark.parametrize(("tokens", "hidden"), [(8000, 576), (2000, 4608)])
def test_long_passes_and_wide_bases_are_fast_alone(tokens: int, hidden: int, tmp_path: Path) -> None:
    size = _size(tmp_path, hidden)
    expected = training_bytes(replace(size, trainable=2_000_000), "keep", 2048, 2048)
    assert choose_together(size, "keep", _jobs(4, tokens), TWO_CORES) == Together(1, "batch", 2048, 1.0, expected)


@pytest.mark.parametrize("way", ["keep", "recompute", "stream"])
def test_no_more_than_fit_in_memory(way: MemoryWay, tmp_path: Path) -> None:
    size, jobs, machine = _size(tmp_path), _jobs(6, 300), replace(TWO_CORES, cores=6)
    most = choose_together(size, way, jobs, machine)
    fewer = choose_together(size, way, jobs, replace(machine, limit=most.bytes - 1))
    assert fewer.at_once > 1
    assert fewer.bytes < most.bytes
    assert fewer.speedup < most.speedup
    assert choose_together(size, way, jobs, replace(machine, limit=1e9)).at_once == 1, "one is always trained"


def test_memory_is_for_all_adapters_and_all_that_they_ask_for(tmp_path: Path) -> None:
    size = _size(tmp_path)
    made = choose_together(size, "recompute", _jobs(8, 300), replace(TWO_CORES, cores=4))
    assert (made.at_once, made.way) == (4, "cores")
    assert made.bytes == training_bytes(replace(size, trainable=8_000_000), "recompute", 4 * 2048, 4 * 2048)


@pytest.mark.parametrize(
    ("seconds", "places", "end"),
    [([10, 1], 2, 10), ([1, 10], 1, 11), ([2, 3, 2, 3, 2], 2, 7), ([4, 4, 4], 2, 8), ([1, 1], 5, 1)],
)
def test_the_last_of_some_jobs_ends(seconds: list[float], places: int, end: float) -> None:
    assert last_ends(seconds, places) == end


def test_a_large_job_is_not_slowed_down_for_a_small_one(tmp_path: Path) -> None:
    size, jobs = _size(tmp_path), _jobs(2, 500)
    assert choose_together(size, "keep", jobs, TWO_CORES).at_once == 2
    unequal = [replace(one, passes=passes) for one, passes in zip(jobs, (1000, 100), strict=True)]
    assert choose_together(size, "keep", unequal, TWO_CORES).at_once == 1


def test_small_jobs_take_turns_beside_a_large_one(tmp_path: Path) -> None:
    jobs = [replace(one, passes=passes) for one, passes in zip(_jobs(5, 500), (40, 10, 10, 10, 10), strict=True)]
    made = choose_together(_size(tmp_path), "keep", jobs, TWO_CORES)
    assert (made.at_once, made.way) == (2, "cores")


def test_a_single_job(tmp_path: Path) -> None:
    assert choose_together(_size(tmp_path), "keep", _jobs(1, 500), TWO_CORES).at_once == 1
