"""Chooses the memory mode of training: the first whose estimate fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from journeyman.errors import InputError, NoGo
from journeyman.reasons import planning
from journeyman.sizing.memory import MemoryWay

Estimate = Callable[[MemoryWay, int, int], int]
"""(mode, tokens of a pack, tokens of a group) → bytes."""


@dataclass(frozen=True)
class MemoryChoice:
    """The memory mode of training, and the estimated peak."""

    way: MemoryWay
    pack_tokens: int
    group_tokens: int
    bytes: int


@dataclass(frozen=True)
class Candidates:
    """What can be chosen from.

    Attributes:
        ways: the modes that are available for this base on this device.
        packs: tokens of a pack, the preferred number first.
        limit: bytes that may be used.
        most_group: with a larger group, weights are streamed less often, but a kill loses more work.
    """

    ways: Sequence[MemoryWay]
    packs: Sequence[int]
    limit: int
    most_group: int


def choose_memory(candidates: Candidates, estimate: Estimate, asked: str, remedy: str) -> MemoryChoice:
    """The first mode, with the first number of tokens, that fits.

    Args:
        asked: train.memory.
        remedy: what else to do if nothing fits.

    Raises:
        InputError: the mode that is asked for is not available.
        NoGo: none fits; training would run out of memory.
    """
    ways = candidates.ways if asked == "auto" else [way for way in candidates.ways if way == asked]
    if not ways:
        available = ", ".join(candidates.ways)
        raise InputError(
            f"train.memory = {asked!r} is not available for this base on this device, which can train in: {available}",
            "Set train.memory = 'auto'",
        )
    needed: dict[MemoryWay, int] = {}
    for way in ways:
        for pack in candidates.packs:
            group = pack
            needed[way] = estimate(way, pack, group)
            if needed[way] > candidates.limit:
                continue
            while way == "stream" and group < candidates.most_group:
                if estimate(way, pack, group + pack) > candidates.limit:
                    break
                group += pack
            return MemoryChoice(way, pack, group, estimate(way, pack, group))
    tried = {f"{way}_gb": needed[way] / 1e9 if way in needed else None for way in get_args(MemoryWay)}
    raise NoGo(planning.TrainingDoesNotFit(candidates.limit / 1e9, **tried), remedy)
