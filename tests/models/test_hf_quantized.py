"""Quantized checkpoints have the values that the libraries of their methods compute.

The files in model_files/quantized were written by bitsandbytes 0.50.2, auto_gptq 0.7.1, autoawq 0.2.9 (packing_utils)
and compressed-tensors 0.20.1: one layer of 32 × 64 in two groups, and `expected`, its values as these libraries
dequantize it with scales in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from journeyman.errors import InputError
from journeyman.models.hf_config import HfConfig
from journeyman.models.hf_model_types import MODEL_TYPES
from journeyman.models.hf_quantized import readable_tensors
from journeyman.models.hf_values import Readable
from journeyman.models.safetensors_file import read_header

FIXTURES = Path(__file__).parents[1] / "model_files/quantized"
PACKED = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}


def compressed(layout: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


SETTINGS: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
    **{f"bitsandbytes-{one}": {"quant_method": "bitsandbytes", "load_in_4bit": True}
       for one in ("nf4", "nf4-nested", "fp4", "fp4-nested")},
    **{f"gptq-{one}": {"quant_method": "gptq", "bits": int(one[0]), "group_size": 32}
       for one in ("4", "4-act", "8")},
    "compressed-packed-sym": compressed("pack-quantized", **PACKED),
    "compressed-packed-asym": compressed("pack-quantized", **{**PACKED, "symmetric": False}),
    "compressed-packed-channel-8": compressed("pack-quantized", num_bits=8, type="int", strategy="channel"),
}  # fmt: skip
"""Name of the file → `quantization_config`."""


def read(path: Path, settings: dict[str, Any] | None) -> dict[str, Readable]:
    config = HfConfig(path.parent / "config.json", "llama", MODEL_TYPES["llama"], {}, settings)
    return readable_tensors(config, {k: v for k, v in read_header(path).items() if k != "expected"})


def in_pieces(tensor: Readable, rows: int) -> np.ndarray[Any, Any]:
    count = tensor.shape[0]
    return np.concatenate([tensor.rows(at, min(at + rows, count)) for at in range(0, count, rows)])


@pytest.mark.parametrize("name", SETTINGS)
def test_values_are_those_of_the_methods_library(name: str) -> None:
    path = FIXTURES / f"{name}.safetensors"
    found, expected = read(path, SETTINGS[name]), read_header(path)["expected"].raw()
    assert list(found) == ["layer.weight"] and found["layer.weight"].shape == expected.shape == (32, 64)
    for rows in (1, 5, 32):
        assert np.array_equal(in_pieces(found["layer.weight"], rows), expected)


def test_groups_without_an_index_are_those_of_consecutive_columns(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    parts = load_file(FIXTURES / "gptq-4.safetensors")
    expected = parts.pop("expected").numpy()
    del parts["layer.g_idx"]
    save_file(parts, tmp_path / "m.safetensors")
    assert np.array_equal(read(tmp_path / "m.safetensors", SETTINGS["gptq-4"])["layer.weight"].rows(0, 32), expected)


def float8(tmp_path: Path, scale: torch.Tensor, ending: str) -> tuple[Path, torch.Tensor]:
    """A file with a layer of 20 × 24 in float8, with every finite value, and the layer itself."""
    byte = torch.arange(480).remainder(254).to(torch.uint8)
    byte += (byte >= 127).to(torch.uint8)  # 127 and 255 are no numbers
    weight = byte.view(torch.float8_e4m3fn).reshape(20, 24)
    save_file({"layer.weight": weight, f"layer.weight{ending}": scale}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors", weight


def test_float8_in_blocks_is_what_transformers_computes(tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    scale = torch.rand(5, 3)
    path, weight = float8(tmp_path, scale, "_scale_inv")
    theirs = Fp8Dequantize(None)._dequantize_one(weight, scale)
    found = read(path, {"quant_method": "fp8", "weight_block_size": [4, 8]})["layer.weight"]
    assert found.storage == "F8_E4M3" and np.array_equal(in_pieces(found, 3), theirs.numpy())


def test_float8_blocks_at_the_edges_are_cut(tmp_path: Path) -> None:
    scale = torch.rand(3, 2)
    path, weight = float8(tmp_path, scale, "_scale_inv")
    found = read(path, {"quant_method": "fp8", "weight_block_size": [8, 16]})["layer.weight"]
    spread = scale.repeat_interleave(8, 0).repeat_interleave(16, 1)[:20, :24]
    assert np.array_equal(in_pieces(found, 7), (weight.float() * spread).numpy())


@pytest.mark.parametrize("shape", [(20, 1), (20,), (1,), ()])
def test_float8_with_scales_of_rows_or_of_the_tensor(shape: tuple[int, ...], tmp_path: Path) -> None:
    scale = torch.rand(shape, dtype=torch.bfloat16)
    path, weight = float8(tmp_path, scale, "_scale")
    strategy = "channel" if shape[:1] == (20,) else "tensor"
    found = read(path, compressed("float-quantized", num_bits=8, type="float", strategy=strategy))["layer.weight"]
    expected = weight.float() * (scale.float().reshape(-1, 1) if strategy == "channel" else scale.float())
    assert np.array_equal(in_pieces(found, 6), expected.numpy())


def test_integers_of_8_bits_with_scales_of_rows(tmp_path: Path) -> None:
    weight, scale = torch.randint(-127, 128, (6, 8), dtype=torch.int8), torch.rand(6, 1)
    save_file({"layer.weight": weight, "layer.weight_scale": scale}, tmp_path / "m.safetensors")
    settings = compressed("int-quantized", num_bits=8, type="int", strategy="channel")
    found = read(tmp_path / "m.safetensors", settings)["layer.weight"]
    assert np.array_equal(found.rows(0, 6), (weight.float() * scale).numpy())


REFUSED: dict[str, tuple[str, dict[str, Any] | None, str]] = {
    "an unknown method": ("awq", {"quant_method": "quip\x1b[2J"}, r"quantized by 'quip.*x1b\[2J', which are not"),
    "no method": ("awq", {"bits": 4}, "quantized by 'None'"),
    "a method that is a list": ("awq", {"quant_method": ["awq"]}, "which are not read"),
    "MXFP4": ("awq", {"quant_method": "mxfp4"}, "quantized by 'mxfp4', which are not read"),
    "no description": ("awq", None, "has type I32, and config.json has no quantization_config"),
    "GPTQ in 3 bits": ("gptq-4", {"quant_method": "gptq", "bits": 3}, "GPTQ in 3 bits"),
    "GPTQ in another layout": ("gptq-4", {**SETTINGS["gptq-4"], "checkpoint_format": "marlin"}, "as 'marlin'"),
    "AWQ for another kernel": ("awq", {**SETTINGS["awq"], "version": "gemv"}, "as 'gemv'"),
    "bitsandbytes in 8 bits": ("awq", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "in 8 bits"),
    "two groups": ("awq", {"quant_method": "compressed-tensors", "config_groups": {"a": {}, "b": {}}}, "several"),
    "no groups": ("awq", {"quant_method": "compressed-tensors", "config_groups": 7}, "several groups"),
    "FP4": ("awq", compressed("nvfp4-pack-quantized", num_bits=4), "as 'nvfp4-pack-quantized'"),
    "rows in another order": (
        "compressed-packed-sym", compressed("pack-quantized", **PACKED, actorder="weight"), "or reordered",
    ),
    "blocks of no size": ("awq", {"quant_method": "fp8", "weight_block_size": [0, 128]}, r"block_size is \[0, 128\]"),
    "another method's file": ("awq", {"quant_method": "fp8"}, "has type I32"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name: str) -> None:
    file, settings, why = REFUSED[name]
    with pytest.raises(InputError, match=why) as raised:
        read(FIXTURES / f"{file}.safetensors", settings)
    assert "BF16" in raised.value.remedy


Change = Callable[[dict[str, torch.Tensor]], object]


def _without(name: str) -> Change:
    return lambda parts: parts.pop(f"layer.{name}")


def _as(name: str, value: torch.Tensor) -> Change:
    return lambda parts: parts.update({f"layer.{name}": value})


DAMAGED: dict[str, tuple[str, Change, str]] = {
    "GPTQ without scales": ("gptq-4", _without("scales"), "'layer.scales' is missing"),
    "GPTQ with a group that there is not": ("gptq-4", _as("g_idx", torch.full((64,), 2, dtype=torch.int32)), "of 2 g"),
    "GPTQ with a negative group": ("gptq-4", _as("g_idx", torch.full((64,), -1, dtype=torch.int32)), "one of 2 groups"),
    "GPTQ with a zero point that wraps": ("gptq-4", _as("qzeros", torch.full((2, 4), -1, dtype=torch.int32)), "ways"),
    "GPTQ with other scales": ("gptq-4", _as("scales", torch.ones(3, 32)), "does not fit"),
    "AWQ with other scales": ("awq", _as("scales", torch.ones(3, 32)), "for scales of"),
    "NF4 without its table": ("bitsandbytes-nf4", _without("weight.quant_map"), "needs a tensor 'quant_map' of 16"),
    "NF4 without scales of scales": ("bitsandbytes-nf4-nested", _without("weight.nested_absmax"), "'nested_absmax' of"),
    "NF4 with a description that is not JSON": (
        "bitsandbytes-nf4", _as("weight.quant_state.bitsandbytes__nf4", torch.zeros(9, dtype=torch.uint8)), "JSON",
    ),
    "NF4 with a description of nothing": (
        "bitsandbytes-nf4",
        _as("weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b"{}"), dtype=torch.uint8)), "quant_state",
    ),
    "packed, of another shape": ("compressed-packed-sym", _as("weight_shape", torch.tensor([32, 640])), "for a weig"),
    "packed, with too few scales": ("compressed-packed-sym", _as("weight_scale", torch.ones(32, 1)), "for a weight of"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_parts_are_refused(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    file, change, why = DAMAGED[name]
    parts = load_file(FIXTURES / f"{file}.safetensors")
    change(parts)
    save_file(parts, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=why):
        found = read(tmp_path / "m.safetensors", SETTINGS[file])["layer.weight"]
        found.rows(0, found.shape[0])
