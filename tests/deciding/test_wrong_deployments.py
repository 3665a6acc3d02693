"""Recipes are chosen on validation rows and judged on test rows: wrong deployments stay below the stated level, in
10,000 simulated searches and iterations of known truth. They do not if the choice is made on the test rows.

Each row has a difficulty that all adapters share, so that their results on the same rows are correlated.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from journeyman.deciding import rules as rule
from journeyman.inference.sequential_testing import confidence_of_look
from journeyman.manifests import ArmSummary, DatasetManifest, Rate, SplitCounts
from journeyman.search.choosing import RowsScored, Scored, chosen, promoted
from journeyman.search.halving import counts
from journeyman.stages.plan import role_confidence
from journeyman.stats.rates import wilson

RUNS, CONFIDENCE = 10_000, 0.95
SHARED = 0.7  # correlation of two adapters' results on one row, before they become pass or fail
RUNGS = 3
_WORDS = np.array(["fail", "pass"])
Counts = npt.NDArray[np.int64]
Rates = npt.NDArray[np.float64]


def corrected(roles: int) -> float:
    """The confidence of one role's interval, as the plan of a run with so many roles says."""
    of_roles = {f"role {i}": SplitCounts(train=9, val=9, test=9, effective_test=9) for i in range(roles)}
    return role_confidence(DatasetManifest.model_construct(splits=of_roles), CONFIDENCE, 1)


def deployed(passed: Counts, n: int, threshold: float, confidence: float) -> npt.NDArray[np.bool_]:
    """Whether the rule of the plan deploys an adapter that passes so many of n rows."""

    def deploys(count: int) -> bool:
        low, high = wilson(count, n, confidence)
        rate = Rate(passed=count, n=n, low=low, high=high, effective_n=n)
        return rule.success(ArmSummary(success=rate, unscored=0, speed=None), threshold).outcome == "pass"

    return np.array([deploys(count) for count in range(n + 1)])[passed]


class Rows:
    """Rows of one split in many runs at once: the same row is easy or hard for every adapter."""

    def __init__(self, rng: np.random.Generator, runs: int, n: int) -> None:
        self.rng, self.n, self.difficulty = rng, n, rng.standard_normal((runs, n), dtype=np.float32)

    def outcomes(self, rates: Rates) -> npt.NDArray[np.bool_]:
        """Which rows an adapter passes whose true success is `rates`, one for each run."""
        noise = self.rng.standard_normal(self.difficulty.shape, dtype=np.float32)
        place = np.sqrt(SHARED) * self.difficulty + np.sqrt(1 - SHARED) * noise
        passes: npt.NDArray[np.bool_] = place < quantiles(rates)[:, None]
        return passes

    def passed(self, rates: Rates) -> Counts:
        """How many rows it passes."""
        return np.count_nonzero(self.outcomes(rates), axis=1)


_GRID = np.linspace(0.001, 0.9999, 20_000)
_QUANTILES = np.array([NormalDist().inv_cdf(float(one)) for one in _GRID])


def quantiles(rates: Rates) -> Rates:
    """The normal quantile of each rate, rounded down, so that no true rate is above the one that is meant."""
    return _QUANTILES[np.searchsorted(_GRID, rates, side="right") - 1]


def best_of_three_rungs(rows: Rows, rates: Rates) -> Counts:
    """Each run's best candidate by plain halving: on each rung the best third goes on, and in the end the best is taken
    by however little. `rates`: see searched."""
    left = np.tile(np.arange(rates.shape[1]), (len(rates), 1))
    for rung in range(RUNGS):
        of_rung = np.take_along_axis(rates, left, 1) - 0.1 * (RUNGS - 1 - rung)
        seen = np.stack([rows.passed(of_rung[:, place]) for place in range(left.shape[1])], axis=1)
        best = np.argsort(-seen, axis=1, kind="stable")
        left = np.take_along_axis(left, best[:, : max(1, left.shape[1] // 3)], 1)
    return left[:, 0]


def searched(rows: Rows, rates: Rates) -> Counts:
    """Each run's recipe by the search's own rules: that which is recommended, or the default.

    Args:
        rates: [run, candidate] the true success of the fully trained recipes, the default first; with fewer training
            rows they are worse.
    """
    names = [str(row) for row in range(rows.n)]
    judged = RowsScored(dict(zip(names, names, strict=True)), dict.fromkeys(names, "coder"))
    planned = counts(rates.shape[1] - 1, RUNGS)
    kept = [list(range(rates.shape[1])) for _ in rates]
    trials: list[list[Scored]] = []
    for rung in range(RUNGS):
        columns = np.array([[rates[run, one] for one in going] for run, going in enumerate(kept)])
        places = columns - 0.1 * (RUNGS - 1 - rung)
        seen = np.stack([rows.outcomes(places[:, place]) for place in range(places.shape[1])], axis=1)
        trials = [
            [Scored(one, dict(zip(names, _WORDS[of], strict=True))) for one, of in zip(going, passed, strict=True)]
            for going, passed in zip(kept, seen.astype(int), strict=True)
        ]
        if rung + 1 < RUNGS:
            kept = [[0, *promoted(of, planned[rung + 1])] for of in trials]
    return np.array([chosen(of, judged, 0.9).number for of in trials])


def below(rng: np.random.Generator, threshold: float, spread: float, candidates: int) -> Rates:
    """True rates of candidates that must not be deployed: the best is just below the threshold."""
    gaps = spread * rng.random((RUNS, candidates))
    return threshold - 1e-4 - gaps + gaps.min(axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "threshold", "roles", "spread", "recipes", "choice"),
    [
        (27, 0.5, 1, 0.0, 27, best_of_three_rungs),
        (27, 0.5, 1, 0.2, 9, searched),
        (60, 0.9, 4, 0.2, 27, best_of_three_rungs),
        (60, 0.9, 4, 0.0, 9, searched),
        (200, 0.98, 1, 0.0, 27, best_of_three_rungs),
        (200, 0.98, 1, 0.2, 27, best_of_three_rungs),
    ],
)
def test_a_search_on_validation_rows_does_not_raise_the_rate_of_wrong_deployments(
    n: int, threshold: float, roles: int, spread: float, recipes: int, choice: Callable[[Rows, Rates], Counts]
) -> None:
    """9 or 27 recipes, three rungs on validation rows, then one look at the test rows of each role."""
    rng = np.random.default_rng(n)
    rates = below(rng, threshold, spread, recipes)
    recipe = choice(Rows(rng, RUNS, 40), rates)
    truth = np.take_along_axis(rates, recipe[:, None], 1)[:, 0]
    looks = [Rows(rng, RUNS, n).passed(truth) for _ in range(roles)]
    wrong = np.any([deployed(passed, n, threshold, corrected(roles)) for passed in looks], axis=0)
    assert 0 < wrong.mean() <= 1 - CONFIDENCE
    if spread:
        assert truth.mean() > rates.mean() + 0.02, "the search finds better recipes than chance does"


def test_a_search_on_the_test_rows_would() -> None:
    """So the level that holds above can be exceeded: here the rows that choose are those that judge."""
    rng, n, threshold = np.random.default_rng(1), 60, 0.9
    rates = below(rng, threshold, 0.0, 27)
    test = Rows(rng, RUNS // 10, n)
    best = np.max([test.passed(rates[: RUNS // 10, one]) for one in range(27)], axis=0)
    assert deployed(best, n, threshold, CONFIDENCE).mean() > 2 * (1 - CONFIDENCE)


def iterated(
    rng: np.random.Generator, n: int, threshold: float, looks: int, charged: Callable[[float, int], float]
) -> float:
    """The share of runs that deploy at any look, although every adapter is just too bad, and no run stops before.

    After a look that does not deploy, what is tried next depends on it: gentle changes, whose results resemble those
    seen, if nearly enough rows passed, and other data if not.

    Args:
        charged: confidence and number of a look → the confidence of its interval.
    """
    test, again = (Rows(rng, RUNS, n) for _ in range(2))
    truth, wrong = np.full(RUNS, threshold - 1e-4), np.zeros(RUNS, bool)
    difficulty = test.difficulty
    for look in range(1, looks + 1):
        passed = test.passed(truth)
        wrong |= deployed(passed, n, threshold, charged(CONFIDENCE, look))
        near = passed >= np.median(passed)
        test.difficulty = np.where(near[:, None], difficulty, again.difficulty)
    return float(wrong.mean())


def _uncharged(confidence: float, look: int) -> float:
    return confidence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "threshold", "looks"), [(27, 0.5, 3), (27, 0.5, 6), (60, 0.9, 6), (200, 0.98, 3), (200, 0.98, 6)]
)
def test_iterating_stays_under_the_level_over_all_looks_and_would_not_if_they_were_not_charged(
    n: int, threshold: float, looks: int
) -> None:
    wrong = iterated(np.random.default_rng(n), n, threshold, looks, confidence_of_look)
    uncharged = iterated(np.random.default_rng(n), n, threshold, looks, _uncharged)
    assert 0 < wrong <= 1 - CONFIDENCE < uncharged


def test_looks_at_full_error_would_exceed_it() -> None:
    rng, n, threshold, looks = np.random.default_rng(3), 60, 0.9, 12
    tests = Rows(rng, RUNS // 10, n)
    passed = [tests.passed(np.full(RUNS // 10, threshold - 1e-4)) for _ in range(looks)]
    at_full = np.any([deployed(one, n, threshold, CONFIDENCE) for one in passed], axis=0).mean()
    at_half = np.any(
        [deployed(one, n, threshold, confidence_of_look(CONFIDENCE, 1 + look)) for look, one in enumerate(passed)],
        axis=0,
    ).mean()
    assert at_half <= 1 - CONFIDENCE < at_full
