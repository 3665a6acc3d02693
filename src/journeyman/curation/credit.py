"""Outcome credit: weights a row by what happened later in its session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from journeyman.config import CreditConfig
from journeyman.curation.columns import Rows
from journeyman.manifests import CreditFunnel

Weights = NDArray[np.float64]


def credited(columns: Rows, roles: Sequence[str], rules: Sequence[CreditConfig]) -> tuple[Weights, list[CreditFunnel]]:
    """Returns the weight of every row (1 if no rule applies to it), and the funnel of each rule."""
    if not rules:
        return np.broadcast_to(1.0, len(columns)), []
    weights = np.ones(len(columns))
    funnels, bit = [], 0
    order = _order(columns)
    for rule in rules:
        judged = np.flatnonzero(columns["role"] == (roles.index(rule.role) if rule.role in roles else -1))
        alive = columns["session"][judged] != 0
        steps = [("rows of the role", len(judged)), ("with a session", int(alive.sum()))]
        for need in rule.needs:
            happened = np.flatnonzero((columns["outcomes"] >> np.uint64(bit)) & np.uint64(1))
            alive &= _followed(columns, order, judged, happened)
            steps.append((f"then {need.role} matches {need.matches!r}", int(alive.sum())))
            bit += 1
        weights[judged] = np.where(alive, weights[judged], weights[judged] * rule.otherwise)
        funnels.append(CreditFunnel(role=rule.role, steps=dict(steps), otherwise=rule.otherwise))
    return weights, funnels


def _order(columns: Rows) -> NDArray[np.float64]:
    """The time of each row, or its place in the log if any time is missing."""
    times = columns["time"]
    return np.arange(len(columns), dtype=float) if np.isnan(times).any() else np.asarray(times)


def _followed(
    columns: Rows, order: NDArray[np.float64], judged: NDArray[np.int64], happened: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """For each judged row: does a row of `happened` follow it in the same session?"""
    if not len(happened):
        return np.zeros(len(judged), dtype=bool)
    sessions = columns["session"][happened]
    by_session = np.lexsort((order[happened], sessions))
    sessions = sessions[by_session]
    # The last row of a session is just before the place where the next session would begin.
    last = np.searchsorted(sessions, columns["session"][judged], side="right") - 1
    latest = happened[by_session][np.maximum(last, 0)]
    same = (last >= 0) & (columns["session"][latest] == columns["session"][judged])
    later = (order[latest] > order[judged]) | ((order[latest] == order[judged]) & (latest > judged))
    return np.asarray(same & later)
