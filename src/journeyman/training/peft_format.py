"""The adapter as `peft` saves it: names and shapes of its tensors, and its configuration.

Experts have one of two forms. Where `transformers` had a module for each expert before version 5, the adapter is saved
for each of them: older versions, `peft` with any version (which stacks them when it loads them) and vLLM read this
form; vLLM ignores the stacked form of these families without an error (vllm-project/vllm, pull request 41384). Where
they have always been stacked, the adapter is, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from journeyman.config import LoraConfig
from journeyman.models.base import PeftBase
from journeyman.models.families import is_stacked
from journeyman.models.mixture import GATE_UP
from journeyman.training.lora import Adapter

_PLACE = "base_model.model."
_INSIDE = PeftBase("").inside


def saved_tensors(adapter: Adapter, base: PeftBase) -> dict[str, Tensor]:
    """The tensors of adapter_model.safetensors."""
    return {_moved(name, _INSIDE, base.inside): value for name, value in _tensors(adapter).items()}


def _moved(name: str, of: str, to: str) -> str:
    """The name of a tensor of a decoder that is elsewhere in the model of transformers."""
    return name.replace(f"{_PLACE}{of}.", f"{_PLACE}{to}.", 1)


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    tensors = {name: value.detach().contiguous() for name, value in adapter.parameters.items()}
    for layer, module in _saved_one_by_one(adapter):
        for side in "AB":
            del tensors[adapter.name(layer, module, side)]
        a_NRI, b_NOR = (one.detach() for one in adapter.matrices(layer, module))
        parts = _names(adapter, module)
        for name, part_NOR in zip(parts, b_NOR.chunk(len(parts), dim=1), strict=True):
            for expert, (a_RI, b_OR) in enumerate(zip(a_NRI, part_NOR, strict=True)):
                tensors[_name_of_each(adapter, layer, expert, name, "A")] = a_RI.clone()
                tensors[_name_of_each(adapter, layer, expert, name, "B")] = b_OR.contiguous()
    return tensors


def parameters_of(adapter: Adapter, tensors: Mapping[str, Tensor], base: PeftBase) -> dict[str, Tensor]:
    """The inverse of saved_tensors, for an adapter with the same modules."""
    parameters = {_moved(name, base.inside, _INSIDE): value for name, value in tensors.items()}
    for layer, module in _saved_one_by_one(adapter):
        found = []
        for name in _names(adapter, module):
            of_each = [
                [parameters.pop(_name_of_each(adapter, layer, expert, name, side)) for side in "AB"]
                for expert in range(adapter.geometry.copies(module))
            ]
            a_RI, b_OR = zip(*of_each, strict=True)
            found.append((torch.cat(a_RI), torch.stack(b_OR, dim=-1).flatten(1)))
        parameters[adapter.name(layer, module, "A")] = found[0][0]
        parameters[adapter.name(layer, module, "B")] = torch.cat([b_OR for _, b_OR in found])
    return parameters


def configuration_of(adapter: Adapter, base: PeftBase) -> dict[str, Any]:
    """The content of adapter_config.json for an adapter of our own decoder."""
    dense = [module for module in adapter.modules if not is_stacked(module)]
    experts = [module for module in adapter.modules if is_stacked(module)]
    one_by_one = [name for module in experts for name in _names(adapter, module)] if _has_modules(adapter) else []
    made = configuration(adapter.config, base, _targets(sorted([*dense, *one_by_one]), base))
    if experts:
        made["lora_dropout"] = 0.0  # it matters in training only, and for experts peft refuses any other value
        if not one_by_one:
            made["target_parameters"] = adapter.expert_parameters()
    return made


def configuration(lora: LoraConfig, base: PeftBase, targets: list[str] | str) -> dict[str, Any]:
    """The content of adapter_config.json. `targets`: the modules, as `peft.LoraConfig.target_modules` names them."""
    return {
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
    }


def _targets(names: list[str], base: PeftBase) -> list[str] | str:
    """The adapted modules by their names, or by a pattern if other parts of the model have modules of these names."""
    return names if base.inside == _INSIDE else rf"{re.escape(base.inside)}\..*\.({'|'.join(names)})"


def _has_modules(adapter: Adapter) -> bool:
    """Whether each expert is saved by itself."""
    mixture = adapter.geometry.mixture
    return mixture is not None and mixture.place_of_each is not None


def _saved_one_by_one(adapter: Adapter) -> Iterator[tuple[int, str]]:
    """Layer and module."""
    for layer in range(adapter.geometry.layers if _has_modules(adapter) else 0):
        for module in adapter.modules:
            if is_stacked(module):
                yield layer, module


def _names(adapter: Adapter, module: str) -> tuple[str, ...]:
    gate, up, down = adapter.mixture.names_of_each
    return (gate, up) if module == GATE_UP else (down,)


def _name_of_each(adapter: Adapter, layer: int, expert: int, name: str, side: str) -> str:
    place = adapter.mixture.place_of_each
    return f"base_model.model.model.layers.{layer}.{place}.{expert}.{name}.lora_{side}.weight"
