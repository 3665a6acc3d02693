"""Splits the rows, then proves that no tested task is trained on: by group, and by comparing the tasks themselves."""

from __future__ import annotations

import numpy as np

from journeyman.config import CurateConfig
from journeyman.curation.columns import Indices
from journeyman.curation.log import Log
from journeyman.curation.near_neighbours import near_neighbours
from journeyman.curation.selection import Choice
from journeyman.curation.split import TEST, Splits, leaked_groups, split_rows
from journeyman.errors import InputError
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter
from journeyman.reasons import Reason, dataset

_MOST_COMPARED = 2_000
_ROUNDS = 5


def separate(
    log: Log,
    choice: Choice,
    rows: Indices,
    config: CurateConfig,
    executor: Executor = HERE,
    reporter: Reporter | None = None,
) -> tuple[Splits, Reason]:
    """Returns the split of each of `rows`, and what the leak check compared.

    The MinHash bands occasionally miss a near duplicate. If the exact comparison finds one across the splits, its
    groups are merged and the split is made again.

    Args:
        executor: compares the tested tasks with all others.

    Raises:
        InputError: a test task still has a near duplicate in another split after five rounds.
    """
    groups = choice.groups[rows].copy()
    roles, times = log.rows["role"][rows], log.rows["time"][rows] if config.split_by_time else None
    # A truncated answer is trained on but cannot be tested against; nor can a row whose check cannot decide.
    cut = np.asarray(log.rows["cut"][rows] | log.rows["unfit"][rows])
    for _ in range(_ROUNDS):
        split = split_rows(roles, groups, log.roles, (config.val_share, config.test_share), config.seed, times, cut)
        assert not leaked_groups(split, groups)
        tested = rows[split == TEST]
        sample = tested
        if len(tested) > _MOST_COMPARED:
            sample = np.random.default_rng(config.seed).choice(tested, _MOST_COMPARED, replace=False)
        found = near_neighbours(sample, rows[split != TEST], log.words, config.near_duplicate, executor, reporter)
        pairs = [(tested_row, other) for tested_row, other in found if log.own[tested_row] == log.own[other]]
        if not pairs:
            others = int((split != TEST).sum())
            return split, dataset.NoLeak(len(sample), len(tested), others, config.near_duplicate)
        _merge(groups, np.searchsorted(rows, np.array(pairs)))
    test_row, other = pairs[0]
    raise InputError(
        f"the test task of {log.where(test_row)} is a near duplicate of {log.where(other)}, which is trained on",
        "Lower curate.near_duplicate",
    )


def _merge(groups: Indices, pairs: Indices) -> None:
    """Gives the group of each pair's second row the number of the first one's, pair after pair.

    Args:
        groups: changed in place.
        pairs: [pairs, 2], indices into `groups`.
    """
    now: dict[int, int] = {}
    """Group → what it is called now."""

    def name(group: int) -> int:
        while group in now:
            group = now[group]
        return group

    for first, second in groups[pairs].tolist():
        if name(first) != name(second):
            now[name(second)] = name(first)
    merged = np.array(sorted(now), dtype=groups.dtype)
    if len(merged):
        names = np.array([name(group) for group in merged.tolist()], dtype=groups.dtype)
        rows = np.flatnonzero(np.isin(groups, merged))
        groups[rows] = names[np.searchsorted(merged, groups[rows])]
