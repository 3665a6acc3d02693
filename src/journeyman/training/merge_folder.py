"""Writes a Hugging Face folder with the adapter merged into its weights: W + s B A, in the format of W.

Only names are compared: each matrix that the adapter changes must be in the folder under the name that peft gives it.
Where it is not (stacked experts, weights that transformers renames when it loads them), the merge is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import clone_or_copy, disk_error, read_json
from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, parts_of
from journeyman.training.tensors import save_tensors

_SAVED = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_INSTEAD = "Use --target gguf, or the adapter as it is (--target adapter)"


def write_merged_folder(base: Path, adapter: Path, out: Path) -> None:
    """Merges in float32; `out` is made and gets every file of the model.

    Args:
        adapter: the folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
        InputError: the weights are quantized, or a matrix of the adapter is not in them.
    """
    refuse_unmergeable(base)
    config = read_json(adapter / "adapter_config.json")
    scale = config["lora_alpha"] / config["r"]
    updates = _updates(adapter)
    left = set(updates)
    try:
        out.mkdir()
        for part in parts_of(base):
            if part.suffix != ".safetensors":
                clone_or_copy(part, out / part.name)
                continue
            tensors = load_file(part)
            for name in sorted(left & tensors.keys()):
                tensors[name] = _merged(tensors[name], *updates[name], scale, f"{part}: {plain(name, 100)}")
                left.remove(name)
            save_tensors(tensors, out / part.name, metadata={"format": "pt"})
    except OSError as error:
        raise disk_error(error, out) from error
    if left:
        raise InputError(f"{base}: has no {plain(min(left), 100)}, which the adapter changes", _INSTEAD)


def refuse_unmergeable(base: Path) -> None:
    """Refuses a folder with quantized weights, into which nothing can be added.

    Raises:
        InputError: config.json names a quantization.
    """
    if read_json(base / CONFIG).get("quantization_config"):
        raise InputError(f"{base}: its weights are quantized, so nothing can be merged into them", _INSTEAD)


def _updates(adapter: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a matrix in the folder → A and B."""
    sides: dict[str, dict[str, Tensor]] = {}
    for name, value in load_file(adapter / "adapter_model.safetensors").items():
        found = _SAVED.fullmatch(name)
        if found is None:
            raise InputError(f"{adapter}: what {plain(name, 100)} changes is not known", _INSTEAD)
        sides.setdefault(f"{found[1]}.weight", {})[found[2]] = value
    return {name: (one["A"], one["B"]) for name, one in sides.items()}


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, where: str) -> Tensor:
    update = scale * (b.float() @ a.float())
    if update.shape != weight.shape or not torch.is_floating_point(weight):
        raise InputError(f"{where}: the adapter's update does not fit {tuple(weight.shape)}", _INSTEAD)
    return (weight.float() + update).to(weight.dtype)
