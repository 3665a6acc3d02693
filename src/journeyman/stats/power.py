"""What a number of held-out rows can show: the power of each decision rule, exact, and the rows that it needs.

"Shown" means with a chance of at least `POWER` that the rule comes to that result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from journeyman.stats.binomial import at_least, at_most, probabilities
from journeyman.stats.groups import one_sided_mcnemar
from journeyman.stats.rates import paired_difference, wilson

POWER = 0.8
"""The chance that studies are usually planned for (Cohen, 1988, Statistical Power Analysis)."""
_MOST_ROWS = 1 << 17
_MOST_PAIRED = 20_000
_STEPS = 30
_NEGLIGIBLE = 1e-9


def power(n: int, rate: float, threshold: float, confidence: float) -> float:
    """The chance that the whole Wilson interval of n rows is at or above `threshold`, if the true rate is `rate`."""
    least = _least_passed(n, threshold, confidence)
    return 0.0 if least is None else at_least(least, n, rate)


def failing_power(n: int, rate: float, threshold: float, confidence: float) -> float:
    """The chance that the whole Wilson interval of n rows is below `threshold`, if the true rate is `rate`."""
    most = _most_passed(n, threshold, confidence)
    return 0.0 if most is None else at_most(most, n, rate)


def least_rate_shown(n: int, threshold: float, confidence: float) -> float | None:
    """The smallest true rate that n rows show to be at or above `threshold`; None: not even a rate of 1."""
    if power(n, 1.0, threshold, confidence) < POWER:
        return None
    return _border(lambda rate: power(n, rate, threshold, confidence), threshold, 1.0)


def largest_rate_refuted(n: int, threshold: float, confidence: float) -> float | None:
    """The largest true rate that n rows show to be below `threshold`; None: not even a rate of 0."""
    if failing_power(n, 0.0, threshold, confidence) < POWER:
        return None
    return _border(lambda rate: failing_power(n, rate, threshold, confidence), threshold, 0.0)


def rows_to_show(rate: float, threshold: float, confidence: float) -> int | None:
    """The rows that show a true rate above `threshold` to be there; None: more than 131,072.

    Power does not grow steadily with the rows, so the number is one from which a few more rows don't lose it again.
    """
    return _rows(lambda n: power(n, rate, threshold, confidence)) if rate > threshold else None


def rows_to_refute(rate: float, threshold: float, confidence: float) -> int | None:
    """The rows that show a true rate below `threshold` to be there; None: more than 131,072."""
    return _rows(lambda n: failing_power(n, rate, threshold, confidence)) if rate < threshold else None


def margin_power(n: int, differing: float, margin: float, confidence: float) -> float:
    """The chance that n paired rows show an arm to be less than `margin` below the other, if both are equally good.

    Args:
        differing: share of the rows on which the two come to different results, half of them in favor of each.
    """
    if n <= 0:
        return 0.0
    total = 0.0
    for differ, chance in enumerate(probabilities(n, differing)):
        if chance > _NEGLIGIBLE:
            total += float(chance) * at_least(_least_won(differ, n, margin, confidence), differ, 0.5)
    return total


def _least_won(differ: int, n: int, margin: float, confidence: float) -> int:
    """Of `differ` rows with different results, the fewest that must be won; one more than all if none is enough."""
    low, high = 0, differ + 1
    while low < high:
        middle = (low + high) // 2
        enough = paired_difference(middle, differ - middle, n, confidence)[0] > -margin
        low, high = (low, middle) if enough else (middle + 1, high)
    return high


def least_margin_shown(n: int, differing: float, confidence: float) -> float | None:
    """The smallest margin that n paired rows show, see margin_power; None: not even a margin of 1.

    More than 20,000 rows count as 20,000: they show less than a point, and more would take long to compute.
    """
    n = min(n, _MOST_PAIRED)
    if margin_power(n, differing, 1.0, confidence) < POWER:
        return None
    return _border(lambda margin: margin_power(n, differing, margin, confidence), 0.0, 1.0)


def veto_power(n: int, lost: float, margin: float, confidence: float) -> float:
    """The chance that the regression rule fails: more than `margin` of n questions lost, and more than chance explains
    (one-sided McNemar test).

    Args:
        lost: true share of the questions that only the base answers; the adapter answers none that the base does not.
    """
    least = next((k for k in range(1, n + 1) if k > margin * n and (one_sided_mcnemar(0, k) or 0) < 1 - confidence), 0)
    return at_least(least, n, lost) if least else 0.0


def least_loss_vetoed(n: int, margin: float, confidence: float) -> float | None:
    """The smallest true loss that the regression rule finds in n questions; None: not even the loss of all."""
    if veto_power(n, 1.0, margin, confidence) < POWER:
        return None
    return _border(lambda lost: veto_power(n, lost, margin, confidence), 0.0, 1.0)


@lru_cache(maxsize=4096)
def _least_passed(n: int, threshold: float, confidence: float) -> int | None:
    """The fewest rows that must pass for the whole interval to be at or above the threshold."""
    if n <= 0 or wilson(n, n, confidence)[0] < threshold:
        return None
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson(middle, n, confidence)[0] >= threshold else (middle + 1, high)
    return high


@lru_cache(maxsize=4096)
def _most_passed(n: int, threshold: float, confidence: float) -> int | None:
    """The most rows that may pass for the whole interval to be below the threshold."""
    if n <= 0 or wilson(0, n, confidence)[1] >= threshold:
        return None
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wilson(middle, n, confidence)[1] < threshold else (low, middle - 1)
    return low


def _border(chance: Callable[[float], float], without: float, with_it: float) -> float:
    """The value nearest to `without` whose chance is at least POWER, on the way to `with_it`, where it is."""
    for _ in range(_STEPS):
        middle = (without + with_it) / 2
        without, with_it = (without, middle) if chance(middle) >= POWER else (middle, with_it)
    return with_it


def _rows(chance: Callable[[int], float]) -> int | None:
    high = 1
    while not _lasting(chance, high):
        high *= 2
        if high > _MOST_ROWS:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _lasting(chance, middle) else (middle, high)
    return high


def _lasting(chance: Callable[[int], float], n: int) -> bool:
    """Whether n rows have the power, and somewhat more rows too."""
    return all(chance(round(n * (1 + more / 100))) >= POWER for more in (0, 3, 7, 13, 20))
