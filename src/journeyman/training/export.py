"""Writes the adapter in `peft`'s format and as a GGUF adapter for llama.cpp.

Nothing is merged: both files hold the same A and B. Llama-family GGUF files store q and k with interleaved
rotary pairs, so the rows of B are reordered there (models.weights.to_interleaved).
"""

from __future__ import annotations

import os
from pathlib import Path

import gguf
from safetensors.torch import save_file

from journeyman.artifacts import write_json
from journeyman.models.geometry import GGUF_MODULE_NAMES
from journeyman.models.weights import to_interleaved
from journeyman.training.lora import Adapter, parameter_name


def write_peft(adapter: Adapter, base_name: str, folder: Path) -> None:
    """adapter_model.safetensors and adapter_config.json, as `peft.PeftModel.from_pretrained` reads them."""
    tensors = {name: value.detach().contiguous() for name, value in adapter.parameters.items()}
    staged = folder / ".adapter_model.tmp"
    save_file(tensors, staged, metadata={"format": "pt"})
    staged.replace(folder / "adapter_model.safetensors")
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": adapter.config.rank,
            "lora_alpha": adapter.config.alpha,
            "lora_dropout": adapter.config.dropout,
            "target_modules": sorted(adapter.config.targets),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "use_dora": False,
            "use_rslora": False,
        },
    )


def write_gguf(adapter: Adapter, path: Path) -> None:
    """A GGUF adapter: per target `blk.N.NAME.weight.lora_a` and `.lora_b`, in float32.

    Source: ggml-org/llama.cpp, src/llama-adapter.cpp (keys and names that its loader requires).
    """
    geometry = adapter.geometry
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(staged, geometry.architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.config.alpha)
    for layer in range(geometry.layers):
        for module in adapter.config.targets:
            a_RI = adapter.parameters[parameter_name(layer, module, "A")].detach()
            b_OR = adapter.parameters[parameter_name(layer, module, "B")].detach()
            name = f"blk.{layer}.{GGUF_MODULE_NAMES[module]}.weight"
            writer.add_tensor(f"{name}.lora_a", a_RI.numpy())
            writer.add_tensor(f"{name}.lora_b", to_interleaved(b_OR, module, geometry).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    staged.replace(path)
