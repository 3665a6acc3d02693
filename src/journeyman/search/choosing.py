"""Which trials go on, and whether the best one is better than the default: pure functions of what was scored.

Nothing here knows a model or a file, so the error rates of the rule can be simulated (see tests/search).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from journeyman.stats.groups import effective_rows, group_sizes
from journeyman.stats.rates import paired_difference

Outcome = Literal["pass", "fail", "unscored"]


@dataclass(frozen=True)
class Scored:
    """A trial's outcomes.

    Attributes:
        number: of its candidate; 0 is the default.
        outcomes: row → outcome; empty if the trial diverged, did not fit or failed.
        loss: on the same rows, in nats per token; None: not known.
        seconds: of its training and answering.
    """

    number: int
    outcomes: Mapping[str, Outcome]
    loss: float | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> int:
        """Rows that pass; one that could not be scored does not."""
        return sum(outcome == "pass" for outcome in self.outcomes.values())


@dataclass(frozen=True)
class RowsScored:
    """The rows that all trials of a rung answered.

    Attributes:
        groups: row → its group: outcomes of rows in one group may be correlated.
        roles: row → its role.
    """

    groups: Mapping[str, str]
    roles: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """A trial's success minus the default's, on the rows that could be scored for both.

    Attributes:
        rows: that could be scored for both; without any, the rest is 0, and the interval is -1 to 1.
        low, high: the interval, at the confidence that was asked for.
    """

    rows: int
    wins: int
    losses: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """What a search recommends.

    Attributes:
        number: of the candidate; 0: keep the default, because none is shown to be better.
        best: the recommended candidate, or without one that which ranks first; None: no candidate has outcomes.
        versus: candidate → its difference from the default, over all roles.
        by_role: the same by role.
        confidence: of the intervals, corrected for the number of candidates compared.
        lost: roles in which the best candidate passes fewer rows than the default.
        vetoed: those of them in which its whole interval is below 0, so that it is not recommended.
    """

    number: int
    best: int | None
    versus: Mapping[int, Difference]
    by_role: Mapping[int, Mapping[str, Difference]]
    confidence: float
    lost: Sequence[str] = field(default_factory=tuple)
    vetoed: Sequence[str] = field(default_factory=tuple)


def ranked(trials: Sequence[Scored]) -> list[Scored]:
    """The best first: by rows passed, then the lower loss, then the shorter time; trials without outcomes last."""
    return sorted(
        trials,
        key=lambda one: (
            not one.outcomes,
            -one.passed,
            math.inf if one.loss is None else one.loss,
            one.seconds,
            one.number,
        ),
    )


def promoted(trials: Sequence[Scored], count: int) -> list[int]:
    """The numbers of the `count` candidates that go on to more rows, the best first, without the default.

    Few rows cannot tell candidates apart that differ by one or two of them. So if there is room for two, the one with
    the lowest loss goes on as well, although its success ranks behind.
    """
    order = [one for one in ranked(trials) if one.number and one.outcomes]
    chosen = order[:count]
    known = [one for one in order if one.loss is not None]
    if count > 1 and known:
        lowest = min(known, key=lambda one: one.loss or 0.0)
        if lowest not in chosen:
            chosen[-1] = lowest
    return [one.number for one in chosen]


def chosen(trials: Sequence[Scored], rows: RowsScored, confidence: float) -> Choice:
    """The candidate to train with.

    A candidate is recommended only if the interval of its difference from the default is above 0, and in no role below
    it; of several, the one that ranks first. The intervals over all roles hold for all candidates together
    (Bonferroni).

    Args:
        trials: of the last rung, the default with the number 0 among them.
        rows: which they all answered.
        confidence: of the intervals of all candidates together.

    Raises:
        ValueError: the default is missing.
    """
    by_number = {one.number: one for one in trials}
    if 0 not in by_number:
        raise ValueError("the default is not among the trials")
    default = by_number[0]
    if not default.outcomes:  # it diverged, so it passes nothing
        default = Scored(0, dict.fromkeys(rows.groups, "fail"))
    others = [one for one in ranked(trials) if one.number and one.outcomes]
    level = 1 - (1 - confidence) / max(1, len(others))
    names = sorted(set(rows.roles.values()))
    versus = {one.number: difference(one, default, rows, level) for one in others}
    by_role = {one.number: {role: difference(one, default, rows, level, role) for role in names} for one in others}
    lost = {number: [role for role, pair in of.items() if pair.losses > pair.wins] for number, of in by_role.items()}
    vetoed = {number: [role for role in roles if by_role[number][role].high < 0] for number, roles in lost.items()}
    better = [one.number for one in others if versus[one.number].low > 0 and not vetoed[one.number]]
    best = better[0] if better else others[0].number if others else None
    return Choice(
        better[0] if better else 0, best, versus, by_role, level,
        [] if best is None else lost[best], [] if best is None else vetoed[best],
    )  # fmt: skip


def difference(one: Scored, other: Scored, rows: RowsScored, confidence: float, role: str | None = None) -> Difference:
    """The difference of two trials on the same rows; related rows count as fewer (see stats.groups)."""
    both = [
        row
        for row in rows.groups
        if (role is None or rows.roles[row] == role)
        and all(trial.outcomes.get(row) in ("pass", "fail") for trial in (one, other))
    ]
    if not both:
        return Difference(0, 0, 0, 0.0, -1.0, 1.0)
    moved = [(one.outcomes[row] == "pass") - (other.outcomes[row] == "pass") for row in both]
    wins, losses = moved.count(1), moved.count(-1)
    share = effective_rows(group_sizes([rows.groups[row] for row in both])) / len(both)
    low, high = paired_difference(wins * share, losses * share, len(both) * share, confidence)
    return Difference(len(both), wins, losses, (wins - losses) / len(both), low, high)


def success_by_role(one: Scored, rows: RowsScored) -> dict[str, tuple[int, int]]:
    """Role → rows that pass, and rows that could be scored."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row, outcome in one.outcomes.items():
        found[rows.roles[row]][0] += outcome == "pass"
        found[rows.roles[row]][1] += outcome != "unscored"
    return {role: (passed, scored) for role, (passed, scored) in sorted(found.items())}
