"""Writes the adapter in `peft`'s format and as a GGUF adapter for llama.cpp.

Nothing is merged: both files contain the same A and B. GGUF files of the Llama family store q and k with interleaved
rotary pairs, so the rows of B are reordered for them (models.weights.to_interleaved).
"""

from __future__ import annotations

import os
from pathlib import Path

import gguf
from torch import Tensor

from journeyman.artifacts import disk_error, remove_quietly, sync, write_json
from journeyman.models.families import gguf_parts, is_stacked
from journeyman.models.weights import to_interleaved
from journeyman.training.lora import Adapter
from journeyman.training.tensors import save_tensors


def write_peft(adapter: Adapter, base_name: str, folder: Path) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, as `peft.PeftModel.from_pretrained` reads them.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    tensors = {name: value.detach().contiguous() for name, value in adapter.parameters.items()}
    staged = folder / f".adapter_model.{os.getpid()}.tmp"
    try:
        save_tensors(tensors, staged, metadata={"format": "pt"})
        staged.replace(folder / "adapter_model.safetensors")
    except OSError as error:
        raise disk_error(error, folder / "adapter_model.safetensors") from error
    finally:
        remove_quietly(staged)
    experts = adapter.expert_parameters()
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": adapter.config.rank,
            "lora_alpha": adapter.config.alpha,
            # Of training only; for stacked experts, peft refuses any other value.
            "lora_dropout": 0.0 if experts else adapter.config.dropout,
            "target_modules": sorted(module for module in adapter.modules if not is_stacked(module)),
            **({"target_parameters": experts} if experts else {}),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "use_dora": False,
            "use_rslora": False,
        },
    )


def write_gguf(adapter: Adapter, path: Path) -> None:
    """Writes a GGUF adapter: for each target `blk.N.NAME.weight.lora_a` and `.lora_b`, in float32.

    Those of experts have three dimensions; llama.cpp multiplies each token by those of its experts.

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


def adapter_in_gguf(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a matrix in GGUF → its A and B, in the order of its rows; stacked for experts (N, …).

    A module that is several matrices in GGUF has one A, which all of them get.
    """
    found = {}
    for layer in range(adapter.geometry.layers):
        for module in adapter.modules:
            a, b = (one.detach() for one in adapter.matrices(layer, module))
            names = gguf_parts(module)
            for name, part in zip(
                names, to_interleaved(b, module, adapter.geometry).chunk(len(names), -2), strict=True
            ):
                found[f"blk.{layer}.{name}.weight"] = (a, part)
    return found


def _write_gguf(adapter: Adapter, path: Path) -> None:
    writer = gguf.GGUFWriter(path, adapter.geometry.architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.config.alpha)
    for name, (a, b) in adapter_in_gguf(adapter).items():
        writer.add_tensor(f"{name}.lora_a", a.contiguous().numpy())
        writer.add_tensor(f"{name}.lora_b", b.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
