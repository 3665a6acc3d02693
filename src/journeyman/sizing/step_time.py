"""Fits the time of a group of packs to measured ones.

The time is a sum of terms that are proportional to what is computed: matrix products, attention, and a constant for
each pack (launching kernels, dequantizing layers). Which terms the measurements can tell apart is decided by
leave-one-out cross-validation: each measured group is predicted from the others (Stone, 1974).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from journeyman.models.geometry import Geometry
from journeyman.models.sizes import Sizes

_ATTENTION_WEIGHT = 2.0
"""Attention reaches about half the rate of matrix products, where it cannot be measured apart."""
_BETTER = 0.8
"""A model with more terms must predict left-out groups with at most this share of the simpler one's error."""
_LEAST_WIDTH, _UNREPEATED, _ALONE = 0.1, 0.05, 0.15
"""Relative: half the width of an interval at least, as a run's rate differs from a trial's (by up to 8 % on a GPU, see
benchmarks/README.md); the spread that is assumed if nothing was measured twice; and the residual if only one group was
measured."""


@dataclass(frozen=True)
class Work:
    """What is computed for one or several packs.

    Attributes:
        packs: how many, or calls with a constant cost.
        tokens: computed tokens; a common prefix counts once.
        pairs: pairs of a query and a key that it attends to.
        labels: positions at which the head is computed.
    """

    packs: int = 0
    tokens: int = 0
    pairs: int = 0
    labels: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.packs + other.packs, self.tokens + other.tokens, self.pairs + other.pairs, self.labels + other.labels
        )


def operations(work: Work, sizes: Sizes) -> tuple[float, float]:
    """Operations of matrix products, and of attention, in a forward and backward pass.

    A LoRA step multiplies each frozen matrix twice per token, the head at labels only; attention has two products
    forward and five backward.
    """
    head = sizes.vocab * sizes.hidden
    width = sizes.heads * sizes.head_dim if isinstance(sizes, Geometry) else sizes.hidden
    products = 4.0 * ((sizes.linear_parameters - head) * work.tokens + head * work.labels)
    return products, 14.0 * sizes.layers * width * work.pairs


@dataclass(frozen=True)
class Timed:
    """A group of packs and the seconds that each repetition took."""

    work: Work
    seconds: Sequence[float]

    @property
    def typical(self) -> float:
        return statistics.median(self.seconds)


_TERMS: Sequence[Sequence[str]] = ("together",), ("packs", "together"), ("packs", "products", "attention")


@dataclass(frozen=True)
class StepTime:
    """The seconds of any group of packs.

    Attributes:
        coefficients: term → seconds for each unit of it.
        residual: relative error with which measured groups are predicted from the others; None: there was only one.
        spread: relative standard deviation of repetitions; None: nothing was repeated.
    """

    sizes: Sizes
    coefficients: dict[str, float]
    residual: float | None
    spread: float | None

    def seconds(self, work: Work) -> float:
        terms = _values(work, self.sizes)
        return sum(per * terms[name] for name, per in self.coefficients.items())

    @property
    def width(self) -> float:
        """Half the width of an interval around a predicted time, as a share of it: two standard deviations."""
        spread = _UNREPEATED if self.spread is None else self.spread
        return max(_LEAST_WIDTH, 2 * math.hypot(spread, _ALONE if self.residual is None else self.residual))


def fit(timed: Sequence[Timed], sizes: Sizes) -> StepTime:
    """The model with the least error on left-out groups.

    Args:
        timed: at least one group.
    """
    best: tuple[float, Sequence[str]] | None = None
    for terms in _TERMS:
        if len(timed) <= len(terms):
            continue
        error = _left_out_error(timed, sizes, terms)
        if best is None or error < _BETTER * best[0]:
            best = error, terms
    terms = best[1] if best is not None else _TERMS[0]
    return StepTime(
        sizes=sizes,
        coefficients=dict(zip(terms, _solve(timed, sizes, terms), strict=True)),
        residual=None if best is None else best[0],
        spread=spread_of(timed),
    )


def spread_of(timed: Sequence[Timed]) -> float | None:
    """The relative standard deviation of repetitions, over all groups that were repeated."""
    squares, freedom = 0.0, 0
    for one in timed:
        mean = statistics.fmean(one.seconds)
        if len(one.seconds) > 1 and mean > 0:
            squares += sum((value / mean - 1) ** 2 for value in one.seconds)
            freedom += len(one.seconds) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _values(work: Work, sizes: Sizes) -> dict[str, float]:
    products, attention = operations(work, sizes)
    return {
        "packs": float(work.packs),
        "products": products,
        "attention": attention,
        "together": products + _ATTENTION_WEIGHT * attention,
    }


def _solve(timed: Sequence[Timed], sizes: Sizes, terms: Sequence[str]) -> list[float]:
    """Least squares of relative errors with no coefficient below 0: the best of all subsets of the terms."""
    values = [_values(one.work, sizes) for one in timed]
    rows: NDArray[np.float64] = np.array(
        [[value[name] / one.typical for name in terms] for one, value in zip(timed, values, strict=True)]
    )
    wanted, best, least = np.ones(len(timed)), [0.0] * len(terms), math.inf
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    for count in range(1, len(terms) + 1):
        for chosen in combinations(range(len(terms)), count):
            columns = list(chosen)
            found = np.linalg.lstsq(rows[:, columns] / scale[columns], wanted, rcond=None)[0]
            error = float(((rows[:, columns] / scale[columns] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and error < least - 1e-12:
                least, best = error, [0.0] * len(terms)
                for column, value in zip(columns, found / scale[columns], strict=True):
                    best[column] = float(value)
    return best


def _left_out_error(timed: Sequence[Timed], sizes: Sizes, terms: Sequence[str]) -> float:
    """Root mean square of the relative errors with which each group is predicted from all others."""
    squares = []
    for place, one in enumerate(timed):
        others = [*timed[:place], *timed[place + 1 :]]
        made = StepTime(sizes, dict(zip(terms, _solve(others, sizes, terms), strict=True)), None, None)
        squares.append((made.seconds(one.work) / one.typical - 1) ** 2)
    return math.sqrt(statistics.fmean(squares))
