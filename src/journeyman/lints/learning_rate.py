"""The peak learning rate, against what usually works for an adapter on a base of this size.

Sources: Schulman et al., "LoRA Without Regret" (Thinking Machines, 2025): the best rate of an adapter is about ten
times that of full fine-tuning, does not depend on the rank if the update is scaled by alpha / rank, and is higher by
half in runs of about a hundred steps or less; thinking-machines-lab/tinker-cookbook, hyperparam_utils.py, for its
change with the width of the base, at an alpha of 32. A larger alpha has the effect of a larger rate.
"""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.models.geometry import Geometry
from journeyman.models.sizes import Sizes
from journeyman.reasons.lints import LearningRateUnusual

_AT_WIDTH_2000, _ALPHA = 5e-4, 32
_EXPONENTS = {"qwen2": 0.0775, "qwen3": 0.0775}
_EXPONENT = 0.781  # measured on Llama
_SHORT_STEPS, _SHORT = 100, 1.5
_BELOW, _ABOVE = 10, 4
"""How far from the best rate losses become clearly worse: rates that are too high do more damage."""


def usual_rate(sizes: Sizes, alpha: float, steps: int) -> float:
    """The rate from which to start."""
    exponent = _EXPONENTS.get(sizes.architecture, _EXPONENT) if isinstance(sizes, Geometry) else _EXPONENT
    at_alpha: float = _AT_WIDTH_2000 * (2000 / sizes.hidden) ** exponent * _ALPHA / alpha
    return at_alpha * (_SHORT if steps <= _SHORT_STEPS else 1.0)


def learning_rate(facts: Facts) -> Iterator[Found]:
    """A rate that is far from the usual one."""
    recipe, sizes = facts.recipe, facts.base.sizes
    steps = max((run.steps for run in facts.runs.values()), default=0)
    if sizes is None or not steps:
        return
    usual = usual_rate(sizes, recipe.alpha, steps)
    low, high = usual / _BELOW, usual * _ABOVE
    if not low <= recipe.learning_rate <= high:
        yield Found(LearningRateUnusual(recipe.learning_rate, low, high, usual, recipe.rank, recipe.alpha, steps))
