"""Predicts the success of a model trained on all rows from those of models trained on parts of them.

Model: the log odds of success rise by the same amount with each doubling of the rows, or by less. The steepness is the
least-squares slope of what was measured; each further doubling brings between none of it (a plateau) and one and a half
times it, all alike likely. For small failure rates that contains the power law of Hestness et al. (2017, Deep Learning
Scaling is Predictable, Empirically); from two or three points nothing finer can be told.

The interval has three parts: chance in the rows (a Bayesian bootstrap over groups of rows; Rubin, 1981, Annals of
Statistics 9:1), which all points share because they answer the same rows; the steepness from here on; and that two
training runs with the same settings differ. Simulated over curves of many shapes, intervals of 95 % cover 96 % of runs,
and 90 % for the worst shape; from two points only, 95 % and 88 %. Not covered: success that is still near zero at the
last point and then suddenly appears.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from journeyman.stats.groups import effective_rows

Array = NDArray[np.float64]

_DRAWS = 4000
_STEEPEST = 1.5
RUNS_DIFFER = 0.35
"""Standard deviation, in log odds, of the last point and the predicted run together: about nine points at a rate of a
half, two near 95 %."""
_MASS = 0.25
"""Weight of each outcome that was not seen: about one row in all for each point."""
_LEAST_SPAN = 1.5
"""Between the fewest and the most rows; closer points say nothing about the slope."""
_AT_A_TIME = 2_000


@dataclass(frozen=True)
class Range:
    """An interval and the middle of what is likely."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True)
class RowsFor:
    """Training rows at which a rate is reached. None: more than were looked at, or never."""

    low: int | None
    likely: int | None
    high: int | None


@dataclass(frozen=True)
class LearningCurve:
    """What is known about success by training rows.

    Attributes:
        rows: training rows of the last point.
        level: [draws], log odds of success at the last point.
        slope: [draws], log odds that each further doubling brings.
        noise: [draws], by which a run may differ, in log odds.
        answers: rows that all points have an outcome for, and that the curve is fitted to.
    """

    rows: int
    level: Array
    slope: Array
    noise: Array
    answers: int

    def at(self, rows: int, confidence: float) -> Range:
        """The success of a run on so many rows. It is known no better for fewer rows than those of the last point."""
        doublings = max(0.0, math.log2(rows / self.rows))
        return Range(*_rates(self.level + doublings * self.slope + self.noise, confidence))

    def rows_for(self, rate: float, confidence: float, most: int) -> RowsFor:
        """The training rows at which the success reaches `rate`, looking at no more than `most`."""
        missing = math.log(rate / (1 - rate)) - self.level if rate < 1 else np.full_like(self.level, math.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            doublings = np.where(missing <= 0, 0.0, np.where(self.slope > 0, missing / self.slope, math.inf))
        needed = self.rows * np.exp2(np.minimum(doublings, 64.0))
        found = np.quantile(needed, _places(confidence), method="higher")
        low, likely, high = (None if one > most else math.ceil(one) for one in found)
        return RowsFor(low, likely, high)


def learning_curve(points: Sequence[tuple[int, Mapping[str, bool]]], groups: Mapping[str, str]) -> LearningCurve | None:
    """Fits the curve; rows that not all points have are left out.

    Args:
        points: training rows, and row that was answered → whether the answer passed; in any order.
        groups: row that was answered → its group; outcomes of a group may be correlated.

    Returns:
        None if there are fewer than two points, if they are too close, or if they have no rows in common.
    """
    ordered = sorted(points, key=lambda one: one[0])
    counts = np.array([count for count, _ in ordered], dtype=np.float64)
    common = sorted(set.intersection(*(set(outcomes) for _, outcomes in ordered))) if ordered else []
    if len(counts) < 2 or counts[0] < 1 or counts[-1] < _LEAST_SPAN * counts[0] or not common:
        return None
    random = np.random.default_rng(0)
    passed = np.array([[outcomes[row] for _, outcomes in ordered] for row in common], dtype=np.float64)
    rates = _drawn(passed, [groups[row] for row in common], random)
    odds = np.log(rates) - np.log1p(-rates)
    places = np.log2(counts) - np.log2(counts).mean()
    slope = np.maximum(odds @ places / (places @ places), 0.0) * random.uniform(0.0, _STEEPEST, _DRAWS)
    return LearningCurve(int(counts[-1]), odds[:, -1], slope, random.normal(0.0, RUNS_DIFFER, _DRAWS), len(common))


def _drawn(passed: Array, groups: Sequence[str], random: np.random.Generator) -> Array:
    """Returns [draws, points]: success rates that the outcomes, [rows, points], allow for, by weights of groups.

    The groups weigh together as much as the independent rows that they count as. Outcomes that were not seen get a
    small weight: of each point passing or failing where its neighbour does not, and of all points passing or failing.
    """
    sizes = Counter(groups)
    places = {group: number for number, group in enumerate(sizes)}
    scale = effective_rows(list(sizes.values())) / len(groups)
    of_group, count = np.zeros((len(sizes), passed.shape[1])), np.zeros(len(sizes))
    for group, row in zip(groups, passed, strict=True):
        of_group[places[group]] += row * scale
        count[places[group]] += scale
    unseen = _patterns(passed.shape[1])
    weights = random.gamma(_MASS, size=(_DRAWS, len(unseen)))
    passes, total = weights @ unseen, weights.sum(axis=1)
    for start in range(0, len(count), _AT_A_TIME):
        weights = random.exponential(size=(_DRAWS, len(count[start : start + _AT_A_TIME])))
        passes += weights @ of_group[start : start + _AT_A_TIME]
        total += weights @ count[start : start + _AT_A_TIME]
    drawn: Array = np.clip(passes / total[:, None], 1e-9, 1 - 1e-9)
    return drawn


def _patterns(points: int) -> Array:
    """Outcomes of a row at each point: it passes, or fails, from one of the points on."""
    from_on = [[float(place >= first) for place in range(points)] for first in range(points + 1)]
    until = [[1.0 - one for one in pattern] for pattern in from_on[1:-1]]
    return np.array([*from_on, *until])


def _rates(odds: Array, confidence: float) -> tuple[float, float, float]:
    low, likely, high = (float(1 / (1 + math.exp(-one))) for one in np.quantile(odds, _places(confidence)))
    return low, likely, high


def _places(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, 0.5, (1 + confidence) / 2]
