"""Exact binomial probabilities for any number of rows, without dependencies; the tests compare them with scipy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> NDArray[np.float64]:
    """log 0!, …, log n!."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def probabilities(n: int, rate: float) -> NDArray[np.float64]:
    """The chance of 0, …, n successes in n rows whose success rate is `rate`."""
    if rate in (0.0, 1.0):
        only = np.zeros(n + 1)
        only[n if rate else 0] = 1.0
        return only
    logs, k = _log_factorials(n), np.arange(n + 1)
    found: NDArray[np.float64] = np.exp(logs[n] - logs - logs[::-1] + k * math.log(rate) + (n - k) * math.log1p(-rate))
    return found


def at_least(least: int, n: int, rate: float) -> float:
    """The chance of at least `least` successes."""
    return float(probabilities(n, rate)[max(0, least) :].sum())


def at_most(most: int, n: int, rate: float) -> float:
    """The chance of at most `most` successes."""
    return float(probabilities(n, rate)[: max(0, most + 1)].sum())
