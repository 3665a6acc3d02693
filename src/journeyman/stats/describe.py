"""Mean, median and percentile of measured values; None where there are none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def bootstrap_mean(values: Sequence[float], confidence: float, resamples: int = 2000) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean (Efron, 1979), with a fixed seed; None of no values."""
    if not values:
        return None
    given = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(given), (resamples, len(given)))
    low, high = np.quantile(given[drawn].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: the smallest value with at least `share` of the values at or below it."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
