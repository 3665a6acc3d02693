"""Rows that belong together say less than as many rows apart: what they count as, and a paired test by groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

_EXACT_GROUPS, _DRAWS = 16, 20_000


def effective_rows(sizes: Sequence[int]) -> float:
    """Rows that these groups count as, if the rows of a group all turn out alike: n² / Σ m² (Kish, 1965).

    That is the cautious end. How alike they really are cannot be learned from the few rows that fail where nearly all
    pass, which is where decisions are made.
    """
    rows = sum(sizes)
    return rows * rows / sum(size * size for size in sizes) if rows else 0.0


def group_sizes(groups: Sequence[Hashable]) -> list[int]:
    return list(Counter(groups).values())


def sign_flip(differences: Mapping[str, int]) -> float | None:
    """The two-sided sign-flip test of wins less losses by group (Fisher, 1935).

    If both arms are equally good, each group's difference could as well have been the other way round. All 2^g ways for
    up to 16 groups, 20,000 random ones (with a fixed seed, and the observed way counted) beyond. With groups of one row
    each it is the exact McNemar test. None where no group tells the arms apart.
    """
    moved = np.array([value for value in differences.values() if value], dtype=np.int64)
    if not len(moved):
        return None
    seen = abs(int(moved.sum()))
    if len(moved) <= _EXACT_GROUPS:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((abs(signs @ moved) >= seen).mean())
    signs = np.random.default_rng(0).choice(np.array([-1, 1]), (_DRAWS, len(moved)))
    return (1 + int((abs(signs @ moved) >= seen).sum())) / (1 + _DRAWS)


def one_sided_mcnemar(wins: int, losses: int) -> float | None:
    """How likely it is to lose so many of the rows that tell two arms apart, if nothing was lost; None: none does."""
    n = wins + losses
    return sum(math.comb(n, k) for k in range(wins + 1)) / 2**n if n else None
