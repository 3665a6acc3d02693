"""Related rows say less than independent ones: how many rows they count as, and a paired test by groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_EXACT_GROUPS, _DRAWS = 16, 20_000


def effective_rows(sizes: Sequence[int]) -> float:
    """The number of independent rows that these groups count as: n² / Σ m² (Kish, 1965).

    This cautiously assumes that all rows of a group have the same outcome. How similar they really are cannot be
    learned from few failures, and decisions are made when nearly all rows pass.
    """
    rows = sum(sizes)
    return rows * rows / sum(size * size for size in sizes) if rows else 0.0


def group_sizes(groups: Sequence[Hashable]) -> list[int]:
    return list(Counter(groups).values())


def sign_flip(differences: Mapping[str, int]) -> float | None:
    """The two-sided sign-flip test of wins minus losses by group (Fisher, 1935).

    If both arms are equally good, each group's difference could equally have had the other sign. All 2^g combinations
    are tried for up to 16 groups, otherwise 20,000 random ones (with a fixed seed, plus the observed one). With groups
    of one row each, it is the exact McNemar test. None if no group distinguishes the arms.
    """
    flipped = _flipped(differences)
    return None if flipped is None else float((abs(flipped) >= abs(flipped[0])).mean())


def sign_flip_of_losses(differences: Mapping[str, int]) -> float | None:
    """The chance of at least as many losses more than wins, if both arms are equally good: one-sided, see sign_flip."""
    flipped = _flipped(differences)
    return None if flipped is None else float((flipped <= flipped[0]).mean())


def _flipped(differences: Mapping[str, int]) -> npt.NDArray[np.int64] | None:
    """The sums of the groups' differences with flipped signs, the observed one first."""
    moved = np.array([value for value in differences.values() if value], dtype=np.int64)
    if not len(moved):
        return None
    if len(moved) <= _EXACT_GROUPS:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
    else:
        drawn = np.random.default_rng(0).choice(np.array([-1, 1]), (_DRAWS, len(moved)))
        signs = np.concatenate([np.ones((1, len(moved)), dtype=np.int64), drawn])
    sums: npt.NDArray[np.int64] = signs @ moved
    return sums


def one_sided_mcnemar(wins: int, losses: int) -> float | None:
    """The chance of at least this many losses among the rows on which two arms differ, if both are equally good; None
    if they differ on no row."""
    n = wins + losses
    return sum(math.comb(n, k) for k in range(wins + 1)) / 2**n if n else None
