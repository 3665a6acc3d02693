"""Which linear layers of an architecture that we have no table for get a low-rank update.

Names are those of the modules in `transformers`, such as `model.layers.0.self_attn.q_proj`.
"""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.models.families import MODULES, fused_into

_ROUTES = {"router", "gate", "shared_expert_gate", "experts"}
"""Parts of a mixture of experts: what selects an expert, and the experts, of which each sees few tokens."""


def adapted_names(linear: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The modules to adapt, in the order of the model.

    All seven targets mean every linear layer of a block, whatever it is called. Some of them mean the layers with these
    names; where q, k and v or gate and up are one layer, that layer. If there is none of these, every linear layer.

    Args:
        linear: all linear layers of the decoder's blocks.
    """
    adaptable = [name for name in linear if not _ROUTES & set(name.split("."))]
    wanted = {*targets, *(fused_into(target) for target in targets)}
    named = [name for name in adaptable if name.rpartition(".")[2] in wanted]
    return adaptable if set(targets) == set(MODULES) or not named else named


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of the names, each once, in the order of the model."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
