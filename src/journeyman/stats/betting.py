"""Tests by betting of a difference between two arms, and of one rate: valid at any time, whatever drifts.

Each conversation was given to one of two arms by a coin of known probability, and failed by a part from 0 to 1. The
difference of the two arms' failure rates at that moment is the mean of

    y = (failed - guess) / share          if the arm is the first one, which gets the given share,
    y = -(failed - guess) / (1 - share)   otherwise,

for any guess made before the conversation (inverse-probability weighting; a good guess only makes y vary less, as in
Robins, Rotnitzky & Zhao, 1994). A gambler who bets a fixed part of the capital on y < margin multiplies it by
1 + stake (margin - y). If the difference is at least the margin, no strategy makes money, and the capital ever reaches
1 / alpha with probability at most alpha (Ville, 1939). The capital here is a mixture over `FRACTIONS` of the largest
possible stake (Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS B 2024).

Why stakes are fixed and not tuned to the data so far: for a fixed stake, capital divided by the product of
1 + stake (margin - mean of y) is a martingale, and this product is at most exp(stake · sum of (margin - mean)). So
the level holds for the running mean of differences that drift. With adaptive stakes, it would hold only if the
difference were at least the margin in every single conversation.

When the share changes, the largest stake does too, and a conversation counts in the running mean in proportion to
`weight(share, margin)`, roughly the share of the first arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Large fractions prove low failure rates quickly, small ones are right for high rates. Beginning with large ones
# proves equality of 2 % and 2 % after 300 conversations instead of 450 with equal weights of 2^-1 to 2^-8.
FRACTIONS: Array = np.array([0.75 * 0.6**n for n in range(10)])
WEIGHTS: Array = np.array([0.8**n for n in range(10)]) / sum(0.8**n for n in range(10))
_LOG_WEIGHTS: Array = np.log(WEIGHTS)

_TILTS: Array = np.geomspace(0.01, 8.0, 32)  # differences in log odds, for the interval of a single rate


def weight(share: float | Array, margin: float) -> float | Array:
    """The largest stake: 1 + stake (margin - y) is never negative for y up to 1 / share."""
    return 1 / (1 / share - margin)


def factors(first: Array, share: Array, failed: Array, guess: Array, margin: float) -> Array:
    """What one conversation multiplies the capitals by that bet on "first - second < margin"; never 0.

    All arguments have the same shape, and the result has one more axis, one entry for each of `FRACTIONS`.

    Args:
        first: whether the first arm answered.
        share: the probability with which it was chosen, between 0 and 1.
        failed: the failed part, from 0 to 1.
        guess: the failed part as guessed from earlier conversations. Where the second arm's share is so small that the
            capital could become negative, less is used.
    """
    share = share[..., None]
    stake = FRACTIONS * weight(share, margin)
    used = np.minimum(guess[..., None], 0.5 * (1 - share) * (1 / stake + margin))
    y = (failed[..., None] - used) * np.where(first[..., None], 1 / share, -1 / (1 - share))
    result: Array = 1 + stake * (margin - y)
    return result


def log_mixture(logs: Array) -> Array:
    """The logarithm of the weighted mean of capitals, over the last axis."""
    result: Array = np.logaddexp.reduce(logs + _LOG_WEIGHTS, axis=-1)
    return result


def upper_end(logs: Array, weights: float, n: int, margin: float, alpha: float) -> float:
    """The upper end of a confidence sequence for the running mean difference, first arm minus second.

    The capitals that bet on "below the margin" give the ends for all other values too: by concavity of the logarithm,
    n conversations with the mean difference d multiply a capital by (1 + fraction · mean weight · (margin - d))^n at
    most, in the same martingale for all d. So the probability that the running mean is ever above this end is at most
    alpha, and the end is below the margin exactly when the capital is at least 1 / alpha.

    Args:
        logs: the summed logarithms of `factors`, one for each of `FRACTIONS`.
        weights: the sum of `weight` over the same conversations.
    """
    if not n:
        return 1.0
    stakes = FRACTIONS * (weights / n)

    def refuted(difference: float) -> bool:
        return bool(log_mixture(logs - n * np.log1p(stakes * (margin - difference))) >= -math.log(alpha))

    return _boundary(refuted, -1.0, 1.0)


def upper_rate(failed: float, n: int, alpha: float) -> float:
    """The upper end of a confidence sequence for the running mean of n values from 0 to 1 with the sum `failed`.

    The mean is ever above this end with probability at most alpha, also if it drifts. exp(-tilt · failed) divided by
    (1 + mean (exp(-tilt) - 1))^n is at most a martingale, because exp is convex and the logarithm concave; the capital
    is a mixture over fixed tilts (Howard et al., Time-uniform nonparametric confidence sequences, Ann. Stat. 2021,
    the sub-Bernoulli case). It needs no more than the sum and n, and is exact for values of 0 and 1.
    """
    if not n:
        return 1.0

    def refuted(rate: float) -> bool:
        logs = -_TILTS * failed - n * np.log1p(rate * np.expm1(-_TILTS))
        return bool(np.logaddexp.reduce(logs) - math.log(len(_TILTS)) >= -math.log(alpha))

    return _boundary(refuted, 0.0, 1.0)


def _boundary(refuted: Callable[[float], bool], low: float, high: float) -> float:
    """The least refuted value to within 1e-6, rounded up; `high` if nothing is refuted."""
    if not refuted(high):
        return high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high
