"""Mean, median and percentile of measured values; None if there are none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def bootstrap_mean(values: Sequence[float], confidence: float, resamples: int = 4000) -> tuple[float, float] | None:
    """The bootstrap-t interval of the mean (Efron, 1981, Canadian Journal of Statistics 9:2), with a fixed seed.

    Percentile intervals of few values are too narrow; here each resample is scaled by its own spread.

    Returns:
        None if there are too few values for an interval of this confidence.
    """
    if len(values) < 3:
        return None
    given = np.asarray(values, dtype=np.float64)
    centre, spread = given.mean(), given.std(ddof=1)
    if spread == 0:
        return float(centre), float(centre)
    drawn = given[np.random.default_rng(0).integers(0, len(given), (resamples, len(given)))]
    with np.errstate(divide="ignore", invalid="ignore"):
        students = (drawn.mean(axis=1) - centre) / drawn.std(axis=1, ddof=1)
    low, high = np.quantile(students, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return float(centre - high * spread), float(centre - low * spread)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: the smallest value with at least `share` of the values at or below it."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
