"""Writes the adapter in `peft`'s format and as a GGUF adapter for llama.cpp.

Nothing is merged: both files contain the same A and B. GGUF files of the Llama family store q and k with interleaved
rotary pairs, so the rows of B are reordered for them (models.weights.to_interleaved).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import complete_or_absent, write_json
from journeyman.models.base import PeftBase
from journeyman.models.families import gguf_parts
from journeyman.models.weights import to_interleaved
from journeyman.training.lora import Adapter
from journeyman.training.peft_format import configuration_of, parameters_of, saved_tensors
from journeyman.training.tensors import save_tensors


def write_peft(adapter: Adapter, base: PeftBase, folder: Path) -> None:
    """Writes an adapter of our own decoder: see write_peft_files."""
    write_peft_files(saved_tensors(adapter, base), configuration_of(adapter, base), folder)


def write_peft_files(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, as `peft.PeftModel.from_pretrained` reads them.

    Args:
        tensors: A and B under `peft`'s names.
        config: see peft_format.configuration.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    with complete_or_absent(folder / "adapter_model.safetensors") as staged:
        save_tensors({name: v.contiguous() for name, v in tensors.items()}, staged, metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def load_peft(adapter: Adapter, base: PeftBase, folder: Path) -> None:
    """Copies what `write_peft` wrote into an adapter with the same modules."""
    adapter.load(parameters_of(adapter, load_file(folder / "adapter_model.safetensors"), base))


def write_gguf(adapter: Adapter, path: Path) -> None:
    """Writes a GGUF adapter: for each target `blk.N.NAME.weight.lora_a` and `.lora_b`, in float32.

    Those of experts have three dimensions; llama.cpp multiplies each token by those of its experts.

    Source: ggml-org/llama.cpp, src/llama-adapter.cpp (keys and names that its loader requires).

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    with complete_or_absent(path) as staged:
        _write_gguf(adapter, staged)


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
