"""Puts the frozen matrices of a layer that read the same input below one another, on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from journeyman.models.decoder import LayerWeights
from journeyman.models.gpu.frozen import in_eight_bits

GROUPS = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "o_proj": ("o_proj",),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}
"""Fused matrix → the matrices of `transformers` that it consists of."""


def members(group: str, layer_modules: Sequence[str]) -> tuple[str, ...]:
    """The modules of a layer that form a group: the group itself, if the family fuses them already."""
    return (group,) if group in layer_modules else GROUPS[group]


def fuse(layer: LayerWeights, move: Callable[[Tensor], Tensor], *, eight: bool = False) -> LayerWeights:
    """The layer with one matrix for each group.

    Args:
        move: puts a tensor on the device, in the type in which it computes.
        eight: store the matrices in eight bits.
    """
    linear, bias = {}, {}
    for group in GROUPS:
        parts = members(group, list(layer.linear))
        moved = [move(layer.linear[part]) for part in parts]
        fused = moved[0] if len(moved) == 1 else torch.cat(moved)
        linear[group] = in_eight_bits(fused) if eight else fused
        if any(part in layer.bias for part in parts):
            biases = [layer.bias.get(part, layer.linear[part].new_zeros(len(layer.linear[part]))) for part in parts]
            bias[group] = move(torch.cat(biases))
    names = ("attention_norm", "ffn_norm", "attention_post_norm", "ffn_post_norm", "q_norm", "k_norm")
    norms: dict[str, Any] = {name: move(value) for name in names if (value := getattr(layer, name)) is not None}
    return replace(layer, linear=linear, bias=bias, **norms)
