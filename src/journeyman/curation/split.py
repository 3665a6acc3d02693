"""Splits groups of rows into train, val and test: stratified by role, by seed or time, with no group in two splits."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.curation.columns import Flags, Indices

TRAIN, VAL, TEST = 0, 1, 2
NAMES = ("train", "val", "test")
Splits = NDArray[np.int8]


def split_rows(
    roles: NDArray[Any],
    groups: Indices,
    names: Sequence[str],
    shares: tuple[float, float],
    seed: int,
    times: NDArray[np.float64] | None = None,
    train_only: Flags | None = None,
) -> Splits:
    """Assigns each group as a whole, even if it contains several roles.

    A role's test rows are filled first, then its validation rows, each up to its share rounded to whole rows. A role
    whose share rounds to zero has no rows there, which the decision reports.

    Args:
        roles: role code of each row.
        groups: group number of each row.
        names: names of the roles; they seed the order.
        shares: shares of validation and test.
        times: if given, the newest groups are tested instead of random ones.
        train_only: rows that cannot be tested on; their groups stay in train.
    """
    numbers, group = np.unique(groups, return_inverse=True)
    assigned = np.zeros(len(numbers), dtype=np.int8)
    allowed = np.ones(len(numbers), dtype=bool)
    if train_only is not None:
        allowed[group[train_only]] = False
    latest = np.full(len(numbers), -np.inf)
    if times is not None:
        np.maximum.at(latest, group, np.nan_to_num(times, nan=-np.inf))
    for code in sorted(range(len(names)), key=lambda code: names[code]):
        sizes = np.bincount(group[roles == code], minlength=len(numbers))
        mine = _shuffled(np.flatnonzero((sizes > 0) & allowed), f"{seed}/{names[code]}")
        if times is not None:
            mine = mine[np.argsort(-latest[mine], kind="stable")]
        total = int(sizes.sum())
        for split, share in ((TEST, shares[1]), (VAL, shares[0])):
            room = round(total * share) - int(sizes[assigned == split].sum())
            for one in map(int, mine):
                # A group that is larger than the remaining room stays in train as a whole.
                if assigned[one] == TRAIN and sizes[one] <= room:
                    assigned[one] = split
                    room -= int(sizes[one])
                if room <= 0:
                    break
    return np.asarray(assigned[group], dtype=np.int8)


def _shuffled(items: NDArray[Any], seed: str | int) -> NDArray[Any]:
    """As `random.shuffle` orders a list of them, in a tenth of a list's memory."""
    kind, code = (np.int32, "i") if items.dtype == np.int32 else (np.int64, "q")
    order = array(code)
    order.frombytes(items.astype(kind, copy=False).tobytes())
    random.Random(seed).shuffle(order)
    return np.frombuffer(order, dtype=kind)


def leaked_groups(splits: Splits, groups: Indices) -> set[int]:
    """Groups that are in more than one split; empty if the split is sound."""
    seen = np.zeros((len(NAMES), int(groups.max(initial=-1)) + 1), dtype=bool)
    seen[splits, groups] = True
    return set(np.flatnonzero(seen.sum(axis=0) > 1).tolist())


def random_split_leak(tasks: Indices, val_share: float, test_share: float) -> tuple[float, int, int]:
    """Measures how many tasks leak when these rows are split at random, over several seeds.

    Args:
        tasks: the number of each row's task, from 0.

    Returns:
        The mean and the maximum number of test rows whose task is also in train, and the number of test rows.
    """
    trained = int(len(tasks) * (1 - val_share - test_share) + 1e-9)
    tests = len(tasks) - trained - int(len(tasks) * val_share + 1e-9)
    leaks = []
    for seed in range(100 if len(tasks) <= 1_000 else 3):
        order = _shuffled(tasks, seed)
        train = np.zeros(int(tasks.max(initial=-1)) + 1, dtype=bool)
        train[order[:trained]] = True
        leaks.append(int(train[order[len(order) - tests :]].sum()))
    return sum(leaks) / len(leaks), max(leaks), tests
