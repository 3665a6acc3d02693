"""What trials cost, as those that were made have shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_low

from journeyman.search.halving import Costs
from journeyman.search.ledger import Trial


def costs_of(trials: Sequence[Trial], planned: Callable[[Trial], float]) -> Costs:
    """The costs that these trials measured; the first on a machine is often slow, so medians, the lower of two.

    Args:
        planned: the tokens that a trial was planned with. It may train fewer, if it stops early or drops rows, or more,
            if general rows are trained beside its own; such differences are in the costs of a planned token.
    """
    scored = [one for one in trials if one.state == "scored"]
    return Costs(
        token_s=median_low([one.step_s / max(1.0, planned(one)) for one in scored]),
        trial_s=median_low([max(0.0, one.train_s - one.step_s) for one in scored]),
        answer_s=median_low([one.answer_s / max(1, len(one.outcomes)) for one in scored]),
        engine_s=median_low([one.engine_s * one.together for one in scored]),
    )
