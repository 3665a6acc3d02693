"""What trials cost, as those that were made have shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_low

from journeyman.search.halving import Costs
from journeyman.search.ledger import Trial

_FEWEST = 2


def costs_of(trials: Sequence[Trial], planned: Callable[[Trial], float]) -> Costs:
    """The costs that the later half of these trials measured; one can be slow by chance, so medians, the lower of two.

    The later ones, because the first on a machine is often slow, and other work on it can have begun since.

    Args:
        trials: in the order in which they were made.
        planned: the tokens that a trial was planned with. It may train fewer, if it stops early or drops rows, or more,
            if general rows are trained beside its own; such differences are in the costs of a planned token.
    """
    scored = [one for one in trials if one.state == "scored"]
    scored = scored[min(len(scored) // 2, max(0, len(scored) - _FEWEST)) :]
    return Costs(
        token_s=median_low([one.step_s / max(1.0, planned(one)) for one in scored]),
        trial_s=median_low([max(0.0, one.train_s - one.step_s) for one in scored]),
        answer_s=median_low([one.answer_s / max(1, len(one.outcomes)) for one in scored]),
        engine_s=median_low([one.engine_s * one.together for one in scored]),
    )
