"""Which linear layers of an architecture that we have no table for get a low-rank update.

Names are those of the modules in `transformers`, such as `model.layers.0.self_attn.q_proj`.
"""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.models.families import MODULES, holders


def adapted_names(linear: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The modules to adapt, in the order of the model.

    All seven targets mean every linear layer of a block, whatever it is called. Some of them mean the layers with these
    names; where q, k and v or gate and up are one layer, that layer. If there is none of these, every linear layer.

    Args:
        linear: the linear layers that can be adapted.
    """
    wanted = {name for target in targets for name in holders(target)}
    named = [name for name in linear if name.rpartition(".")[2] in wanted]
    return list(linear) if means_all(targets) or not named else named


def means_all(targets: Sequence[str]) -> bool:
    """Whether the targets stand for every linear layer of a block."""
    return set(targets) == set(MODULES)


def missing_targets(linear: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The targets that are no layer of the model, nor part of one."""
    there = set(short_names(linear))
    return [target for target in targets if not set(holders(target)) & there]


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of the names, each once, in the order of the model."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
