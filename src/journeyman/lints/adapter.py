"""Which layers the adapter changes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.lints import AttentionOnly

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ALL = (*_ATTENTION, "gate_proj", "up_proj", "down_proj")


def targets(facts: Facts) -> Iterator[Found]:
    """An adapter on attention alone ("LoRA Without Regret", as in learning_rate)."""
    chosen, sizes = facts.recipe.targets, facts.base.sizes
    if sizes is None or not chosen or not set(chosen) <= set(_ATTENTION):
        return
    attention, both = (sum(map(math.prod, sizes.adapted_shapes(names))) for names in (_ATTENTION, _ALL))
    if 0 < attention < both:
        yield Found(AttentionOnly(", ".join(chosen), attention / both))
