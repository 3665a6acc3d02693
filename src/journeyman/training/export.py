"""Writes the adapter in `peft`'s format and as a GGUF adapter for llama.cpp.

Nothing is merged: both files contain the same A and B. GGUF files of the Llama family store q and k with interleaved
rotary pairs, so the rows of B are reordered for them (models.weights.to_interleaved).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import gguf
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import disk_error, remove_quietly, sync, write_json
from journeyman.config import LoraConfig
from journeyman.models.base import PeftBase
from journeyman.models.families import gguf_name
from journeyman.models.weights import to_interleaved
from journeyman.training.lora import Adapter, parameter_name
from journeyman.training.tensors import save_tensors

_INSIDE = PeftBase("").inside


def write_peft(adapter: Adapter, base: PeftBase, folder: Path) -> None:
    """Writes an adapter of our own decoder: see write_peft_files."""
    tensors = {
        name.replace(f".{_INSIDE}.{_INSIDE}.", f".{_INSIDE}.{base.inside}.", 1): value.detach()
        for name, value in adapter.parameters.items()
    }
    write_peft_files(tensors, adapter.config, _targets(adapter, base), base, folder)


def write_peft_files(
    tensors: Mapping[str, Tensor], lora: LoraConfig, targets: list[str] | str, base: PeftBase, folder: Path
) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, as `peft.PeftModel.from_pretrained` reads them.

    Args:
        tensors: A and B under `peft`'s names.
        targets: the adapted modules, as `peft.LoraConfig.target_modules` names them.
        base: the model that the adapter belongs to.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    staged = folder / f".adapter_model.{os.getpid()}.tmp"
    try:
        save_tensors({name: v.contiguous() for name, v in tensors.items()}, staged, metadata={"format": "pt"})
        staged.replace(folder / "adapter_model.safetensors")
    except OSError as error:
        raise disk_error(error, folder / "adapter_model.safetensors") from error
    finally:
        remove_quietly(staged)
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base.name,
            "revision": base.revision,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": targets,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "use_dora": False,
            "use_rslora": False,
        },
    )


def read_peft(base: PeftBase, folder: Path) -> dict[str, Tensor]:
    """The tensors that `write_peft` wrote, under the names that an Adapter has for them."""
    inside = f".{_INSIDE}.{base.inside}."
    found = load_file(folder / "adapter_model.safetensors")
    return {name.replace(inside, f".{_INSIDE}.{_INSIDE}.", 1): value for name, value in found.items()}


def _targets(adapter: Adapter, base: PeftBase) -> list[str] | str:
    """The adapted modules by their names, or by a pattern if other parts of the model have modules of these names."""
    names = sorted(adapter.modules)
    return names if base.inside == _INSIDE else rf"{re.escape(base.inside)}\..*\.({'|'.join(names)})"


def write_gguf(adapter: Adapter, path: Path) -> None:
    """Writes a GGUF adapter: for each target `blk.N.NAME.weight.lora_a` and `.lora_b`, in float32.

    Source: ggml-org/llama.cpp, src/llama-adapter.cpp (keys and names that its loader requires).

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_gguf(adapter, staged)
        sync(staged)
        staged.replace(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        remove_quietly(staged)


def _write_gguf(adapter: Adapter, path: Path) -> None:
    geometry = adapter.geometry
    writer = gguf.GGUFWriter(path, geometry.architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.config.alpha)
    for layer in range(geometry.layers):
        for module in adapter.modules:
            a_RI = adapter.parameters[parameter_name(layer, module, "A")].detach()
            b_OR = adapter.parameters[parameter_name(layer, module, "B")].detach()
            name = f"blk.{layer}.{gguf_name(module)}.weight"
            writer.add_tensor(f"{name}.lora_a", a_RI.numpy())
            writer.add_tensor(f"{name}.lora_b", to_interleaved(b_OR, module, geometry).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
