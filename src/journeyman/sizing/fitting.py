"""Finds the configurations that fit into memory and differ least from the one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations
from typing import Any

from journeyman.models.sizes import Sizes
from journeyman.reasons import Reason

_TOGETHER, _MOST = 3, 6


class Severity(IntEnum):
    """What a change of settings does, the mildest first.

    SERVICE: fewer or shorter requests are answered. LESS: a smaller adapter, or a coarser file.
    """

    NOTHING = 0
    ROUNDING = 1
    SERVICE = 2
    LESS = 3
    FEWER_ROWS = 4
    OTHER_MODEL = 5


@dataclass(frozen=True)
class Option:
    """New values of one or more settings.

    Attributes:
        settings: config key → value.
        cost: what it costs.
        sizes: of another base; None: the same one.
    """

    settings: Mapping[str, Any]
    cost: Reason
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Dimension:
    """What can be changed in one respect. `options`: the mildest first; each needs less memory than the one before."""

    severity: Severity
    options: Sequence[Option]


@dataclass(frozen=True)
class Change:
    """A set of changes that fits, and that no longer does if one of them is left out."""

    severity: Severity
    options: tuple[Option, ...]

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for option in self.options for key, value in option.settings.items()}

    @property
    def costs(self) -> list[Reason]:
        return [option.cost for option in self.options]


def nearest(dimensions: Sequence[Dimension], fits: Callable[[Sequence[Option]], bool]) -> list[Change]:
    """The changes that make it fit, the smallest first.

    Sets of changes are ordered by the most severe one, then by their number, then by the order of `dimensions`. Of each
    dimension, the mildest option that is enough is taken. What needs another model is combined with nothing else that
    alters the result.

    Args:
        fits: whether it fits with these options; a later option of a dimension never needs more memory.
    """
    usable = [one for one in dimensions if one.options]
    found: list[tuple[frozenset[int], Change]] = []
    for chosen in _sets(usable):
        numbers = frozenset(chosen)
        if any(smaller <= numbers for smaller, _ in found):
            continue
        parts = [usable[number] for number in chosen]
        if fits([part.options[-1] for part in parts]):
            options = _mildest([part.options for part in parts], fits)
            found.append((numbers, Change(max(part.severity for part in parts), options)))
    found.sort(key=lambda one: (one[1].severity, len(one[0])))
    return [change for _, change in found][:_MOST]


def _sets(dimensions: Sequence[Dimension]) -> Iterator[tuple[int, ...]]:
    for count in range(1, _TOGETHER + 1):
        for chosen in combinations(range(len(dimensions)), count):
            severities = sorted(dimensions[number].severity for number in chosen)
            other_model = severities[-1] is Severity.OTHER_MODEL
            if not (other_model and count > 1 and severities[-2] > Severity.ROUNDING):
                yield chosen


def _mildest(choices: Sequence[Sequence[Option]], fits: Callable[[Sequence[Option]], bool]) -> tuple[Option, ...]:
    """One option of each, the last dimension as mild as possible, then the one before it."""
    at = [len(options) - 1 for options in choices]

    def chosen() -> list[Option]:
        return [options[index] for options, index in zip(choices, at, strict=True)]

    for place in reversed(range(len(choices))):
        strongest = at[place]
        for index in range(strongest):
            at[place] = index
            if fits(chosen()):
                break
        else:
            at[place] = strongest
    return tuple(chosen())
