"""Tests of whether two samples come from the same distribution; the tests compare them with scipy.

Each takes the samples as they are, ties included, and returns an effect size beside the p-value: with thousands of
values, a p-value alone finds differences that matter to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_DRAWS = 4999


class Tested(NamedTuple):
    """The result of a test.

    Attributes:
        p_value: the chance of at least this much difference between two samples of one distribution.
        effect: how large the difference is; each test says in which unit.
    """

    p_value: float
    effect: float


def kolmogorov_smirnov(first: Values, second: Values) -> Tested:
    """The two-sided Kolmogorov-Smirnov test, with Stephens' correction for small samples (1970); ties make it cautious.

    The effect is the largest distance between the two cumulative shares, from 0 to 1.

    Raises:
        ValueError: a sample is empty.
    """
    m, n = _sizes(first, second)
    places = np.concatenate([first, second])
    below_first = np.searchsorted(np.sort(first), places, side="right") / m
    below_second = np.searchsorted(np.sort(second), places, side="right") / n
    distance = float(np.abs(below_first - below_second).max())
    root = math.sqrt(m * n / (m + n))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series converges slowly there, to 1
        return Tested(1.0, distance)
    tail = sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return Tested(min(1.0, max(0.0, 2 * tail)), distance)


def mann_whitney(first: Values, second: Values) -> Tested:
    """The one-sided Mann-Whitney test that `first` is larger, by the normal distribution, corrected for ties.

    The effect is the probability that a value of `first` is larger than one of `second`, ties counted half (Vargha and
    Delaney, 2000); 0.5 if the samples are alike.

    Raises:
        ValueError: a sample is empty.
    """
    m, n = _sizes(first, second)
    _, place, counts = np.unique(np.concatenate([first, second]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    u = float(ranks[:m].sum()) - m * (m + 1) / 2
    total = m + n
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return Tested(1.0, 0.5)
    z = (u - m * n / 2 - 0.5) / math.sqrt(variance)
    return Tested(0.5 * math.erfc(z / math.sqrt(2)), u / (m * n))


def larger_mean(first: Values, second: Values, seed: int = 0) -> Tested:
    """The one-sided permutation test that the mean of `first` is larger: 4,999 random divisions and the observed one.

    The effect is the difference of the means.

    Raises:
        ValueError: a sample is empty.
    """
    m, _ = _sizes(first, second)
    both = np.concatenate([first, second])
    seen = float(first.mean() - second.mean())
    rng = np.random.default_rng(seed)
    sums = np.array([rng.permutation(both)[:m].sum() for _ in range(_DRAWS)])
    # The difference of the means grows with the sum of the first sample; rounding must not turn a tie into less.
    least = float(first.sum())
    reached = int((sums >= least - 1e-9 * max(1.0, abs(least))).sum())
    return Tested((1 + reached) / (1 + _DRAWS), seen)


def same_categories(first: Sequence[int], second: Sequence[int], seed: int = 0) -> Tested:
    """Whether two samples fall into categories alike: Pearson's chi-squared statistic, whose distribution is simulated
    by 4,999 tables with the same margins, so that rare categories do no harm.

    The effect is the share of the first sample that would have to be in other categories (total variation distance).

    Args:
        first, second: the number of values in each category.

    Raises:
        ValueError: a sample is empty, or they have different categories.
    """
    table = np.array([first, second], dtype=np.int64)
    counts = table.sum(axis=0)
    table, counts = table[:, counts > 0], counts[counts > 0]
    m, n = int(table[0].sum()), int(table[1].sum())
    if not m or not n:
        raise ValueError("a sample is empty")
    effect = float(np.abs(table[0] / m - table[1] / n).sum() / 2)
    if len(counts) == 1:
        return Tested(1.0, effect)
    expected = m * counts / (m + n)
    weights = 1 / expected + 1 / (n * counts / (m + n))

    def statistic(of_first: NDArray[np.int64]) -> Values:
        return np.asarray(((of_first - expected) ** 2 * weights).sum(axis=-1))

    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, m, size=_DRAWS, method="marginals")
    seen = float(statistic(table[0]))
    reached = int((statistic(drawn) >= seen * (1 - 1e-9)).sum())
    return Tested((1 + reached) / (1 + _DRAWS), effect)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979), in the same order: all that are at most a level may be called
    found, and the chance that any of these is wrong is at most that level."""
    made = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        made[place] = largest
    return made


def _sizes(first: Values, second: Values) -> tuple[int, int]:
    if not len(first) or not len(second):
        raise ValueError("a sample is empty")
    return len(first), len(second)
