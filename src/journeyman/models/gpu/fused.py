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


Join = Callable[[str, Sequence[Any]], Any]
"""The name of a group, and the matrices of its members → one matrix."""


def together(matrices: Sequence[Tensor]) -> Tensor:
    """The matrices below one another."""
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices))


def members(group: str, layer_modules: Sequence[str]) -> tuple[str, ...]:
    """The modules of a layer that form a group: the group itself, if the family fuses them already."""
    return (group,) if group in layer_modules else GROUPS[group]


def fuse(
    layer: LayerWeights, move: Callable[[Tensor], Tensor], *, eight: bool = False, join: Join | None = None
) -> LayerWeights:
    """The layer with one matrix for each group.

    Args:
        move: puts a tensor on the device, in the type in which it computes.
        eight: store the matrices in eight bits.
        join: makes a group's matrix of those of its members; None: `move` and `eight` say how.
    """
    linear, bias = {}, {}
    for group in GROUPS:
        parts = members(group, list(layer.linear))
        matrices = [layer.linear[part] for part in parts]
        if join is not None:
            linear[group] = join(group, matrices)
        else:
            fused = together([move(one) for one in matrices])
            linear[group] = in_eight_bits(fused) if eight else fused
        if some := [layer.bias[part] for part in parts if part in layer.bias]:
            sizes = [one.shape[0] for one in matrices]
            biases = [layer.bias.get(part, some[0].new_zeros(size)) for part, size in zip(parts, sizes, strict=True)]
            bias[group] = move(torch.cat(biases))
    names = ("attention_norm", "ffn_norm", "attention_post_norm", "ffn_post_norm", "q_norm", "k_norm")
    norms: dict[str, Any] = {name: move(value) for name in names if (value := getattr(layer, name)) is not None}
    return replace(layer, linear=linear, bias=bias, **norms)
