"""The predicted success at all rows: its interval covers the truth for curves of many shapes, in simulated runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import norm

from journeyman.stats.learning_curve import LearningCurve, learning_curve

SHARES = (0.125, 0.25, 0.5)
FULL = 800
RUNS = 100

CURVES: dict[str, Callable[[float], float]] = {
    "learns nothing": lambda share: 0.02,
    "flat": lambda share: 0.3,
    "flat and good": lambda share: 0.95,
    "steady": lambda share: _rate(1.1 + math.log2(share)),
    "slow and good": lambda share: _rate(2.2 + 0.3 * math.log2(share)),
    "power law": lambda share: 1 - 0.2 * share**-0.5,
    "power law with a floor": lambda share: 1 - 0.1 - 0.1 / share,
    "plateau reached early": lambda share: 0.9 * (1 - math.exp(-share / 0.12)),
    "plateau in between": lambda share: 0.9 * (1 - math.exp(-share / 0.5)),
    "steep, then a plateau": lambda share: 0.9 * _rate(3 * math.log2(share / 0.25)),
}


def _rate(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def _odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def _simulated(
    curve: Callable[[float], float], rows: int, random: np.random.Generator, shares: Sequence[float] = SHARES
) -> tuple[LearningCurve, float]:
    """A curve fitted to one simulated probe, and the success of the run on all rows. Runs differ by 0.2 in log odds; a
    row that is hard for one model is hard for the others."""

    def run(share: float) -> float:
        return _rate(_odds(min(max(curve(share), 1e-4), 1 - 1e-4)) + random.normal(0, 0.2))

    hard = random.normal(size=rows)
    points = []
    for share in shares:
        skill = math.sqrt(0.7) * hard + math.sqrt(0.3) * random.normal(size=rows)
        passed = skill < norm.ppf(run(share))
        points.append((round(share * FULL), {str(row): bool(one) for row, one in enumerate(passed)}))
    made = learning_curve(points, {str(row): str(row) for row in range(rows)})
    assert made is not None
    return made, run(1.0)


@pytest.mark.parametrize("shares", [SHARES, pytest.param(SHARES[:2], marks=pytest.mark.slow)])
@pytest.mark.parametrize("rows", [27, pytest.param(150, marks=pytest.mark.slow)])
def test_the_interval_covers_the_success_at_all_rows(rows: int, shares: Sequence[float]) -> None:
    covered: dict[str, float] = {}
    for name, curve in CURVES.items():
        random = np.random.default_rng(7)
        hits = 0
        for _ in range(RUNS):
            made, truth = _simulated(curve, rows, random, shares)
            found = made.at(FULL, 0.95)
            assert found.low <= found.likely <= found.high
            hits += found.low <= truth <= found.high
        covered[name] = hits / RUNS
    assert min(covered.values()) >= 0.85, covered  # of 100 runs; of many, the worst curve covers 0.90, or 0.88 with two
    assert np.mean(list(covered.values())) > 0.94, covered


def test_more_rows_that_answer_make_it_narrower_and_fewer_groups_wider() -> None:
    def width(rows: int, groups: int) -> float:
        outcomes = {str(row): row % 4 != 0 for row in range(rows)}
        made = learning_curve([(50, outcomes), (100, outcomes)], {str(row): str(row % groups) for row in range(rows)})
        assert made is not None
        found = made.at(200, 0.95)
        return found.high - found.low

    assert width(400, 400) < 0.8 * width(40, 40)
    assert width(400, 5) > width(400, 400) + 0.2  # five sessions are no 400 rows
    assert width(30, 1) > 0.7  # one session says next to nothing, however many rows it has


def _points(*rates: float, rows: int = 200) -> list[tuple[int, dict[str, bool]]]:
    """Points at 100, 200, … training rows with these rates; what passes once passes from then on."""
    return [(100 * 2**place, {str(row): row < rate * rows for row in range(rows)}) for place, rate in enumerate(rates)]


def _made(*rates: float) -> LearningCurve:
    points = _points(*rates)
    made = learning_curve(points, {row: row for row in points[0][1]})
    assert made is not None
    return made


def test_a_rising_curve_goes_on_and_a_flat_one_stays() -> None:
    rising, flat = _made(0.2, 0.4, 0.6).at(800, 0.95), _made(0.6, 0.6, 0.6).at(800, 0.95)
    assert rising.likely > 0.64 and rising.high > 0.8
    assert flat.likely == pytest.approx(0.6, abs=0.03) and flat.high < 0.85
    falling = _made(0.7, 0.6, 0.5).at(800, 0.95)
    assert falling.likely == pytest.approx(0.5, abs=0.03)  # it is not expected to fall on


def test_the_rows_that_a_rate_needs() -> None:
    made = _made(0.2, 0.4, 0.6)
    needed = made.rows_for(0.9, 0.8, 10**6)
    assert needed.low is not None and needed.likely is not None
    assert 800 < needed.low < needed.likely
    assert made.at(needed.likely, 0.8).low < 0.9 < made.at(needed.likely, 0.8).high
    assert made.rows_for(0.5, 0.8, 10**6).likely == 400  # reached at the last point
    assert made.rows_for(1.0, 0.8, 10**9).likely is None
    assert _made(0.3, 0.3, 0.3).rows_for(0.9, 0.8, 10_000).likely is None


@pytest.mark.parametrize(
    "points", [[], _points(0.5), [(100, {"a": True}), (120, {"a": True})], [(100, {"a": True}), (400, {"b": True})]]
)
def test_too_little_gives_no_prediction(points: list[tuple[int, dict[str, bool]]]) -> None:
    assert learning_curve(points, {"a": "a", "b": "b", **{str(row): str(row) for row in range(200)}}) is None


def test_the_same_points_give_the_same_prediction_in_any_order() -> None:
    points = _points(0.2, 0.4, 0.6)
    groups = {row: row for row in points[0][1]}
    one, other = learning_curve(points, groups), learning_curve(points[::-1], groups)
    assert one is not None and other is not None
    assert one.at(800, 0.95) == other.at(800, 0.95)
