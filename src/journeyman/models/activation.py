"""The gated activations of feed-forward networks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_CLAMP, _SLOPE = 7.0, 1.702
"""Those of gpt-oss, which llama.cpp does not read from the file (src/llama-graph.cpp, build_moe_ffn)."""


def gated(gate: Tensor, up: Tensor, activation: Literal["silu", "gelu", "clamped"]) -> Tensor:
    """The input of the down projection: the activated gate times `up`, element by element.

    Args:
        activation: "gelu" is the tanh approximation; "clamped" is gpt-oss's: a SiLU with another slope, of a gate that
            is at most 7, times one more than `up`, which is between -7 and 7.
    """
    if activation == "silu":
        return F.silu(gate) * up
    if activation == "gelu":
        return F.gelu(gate, approximate="tanh") * up
    gate = gate.clamp(max=_CLAMP)
    return (up.clamp(-_CLAMP, _CLAMP) + 1) * (gate * torch.sigmoid(gate * _SLOPE))
