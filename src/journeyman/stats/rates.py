"""Intervals and tests of success rates, without dependencies; the tests compare them with scipy."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(passed: float, n: float, confidence: float) -> tuple[float, float]:
    """The Wilson score interval of a rate (Wilson, 1927). Counts may be fractions: see stats.groups.

    Raises:
        ValueError: n is 0.
    """
    if n <= 0:
        raise ValueError("an interval needs at least one row")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = passed / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(wins: float, losses: float, n: float, confidence: float) -> tuple[float, float]:
    """The interval of the difference of two rates measured on the same n rows (Bonett & Price, 2012).

    Raises:
        ValueError: n is 0.
    """
    if n <= 0:
        raise ValueError("an interval needs at least one row")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    won, lost = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = z * math.sqrt((won + lost - (won - lost) ** 2) / (n + 2))
    return max(-1.0, won - lost - half), min(1.0, won - lost + half)


def mcnemar(wins: int, losses: int) -> float | None:
    """The exact two-sided McNemar test: the chance of at least this uneven a split if both arms are equally good.

    None if the arms differ on no row.
    """
    n = wins + losses
    if n == 0:
        return None
    tail: float = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2 * tail)


def kappa(both: int, neither: int, only_first: int, only_second: int) -> float | None:
    """Agreement of two judges beyond chance (Cohen, 1960); None if chance alone would make them always agree."""
    n = both + neither + only_first + only_second
    if not n:
        return None
    first, second = (both + only_first) / n, (both + only_second) / n
    by_chance = first * second + (1 - first) * (1 - second)
    return None if by_chance == 1 else ((both + neither) / n - by_chance) / (1 - by_chance)


def rows_needed(rate: float, threshold: float, confidence: float) -> int | None:
    """The number of rows at which the whole Wilson interval of `rate` is on one side of `threshold`.

    None if the rate equals the threshold: then no number of rows is enough.
    """
    if rate == threshold:
        return None
    low, high = 1, 1
    while not _settled(rate, high, threshold, confidence):
        low, high = high, high * 2
        if high > 10**9:
            return None
    while low < high:
        middle = (low + high) // 2
        if _settled(rate, middle, threshold, confidence):
            high = middle
        else:
            low = middle + 1
    return high


def _settled(rate: float, n: int, threshold: float, confidence: float) -> bool:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    # The score interval excludes a threshold exactly when the score test rejects it.
    return abs(rate - threshold) > z * math.sqrt(threshold * (1 - threshold) / n)
