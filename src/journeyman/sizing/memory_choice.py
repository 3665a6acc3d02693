"""Chooses the memory mode of training: the first whose estimate fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from journeyman.errors import InputError, NoGo
from journeyman.reasons import Reason, planning
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


class DoesNotFit(NoGo):
    """Training does not fit in memory.

    Attributes:
        least: what needs least memory of all that was tried.
        limit: bytes that may be used.
    """

    def __init__(self, reason: Reason, remedy: str, least: MemoryChoice, limit: int) -> None:
        super().__init__(reason, remedy)
        self.least, self.limit = least, limit


def choose_memory(
    candidates: Candidates, estimate: Estimate, asked: str, remedy: str, bare_bytes: int = 0
) -> MemoryChoice:
    """The first mode, with the first number of tokens, that fits.

    Args:
        asked: train.memory.
        remedy: what else to do if nothing fits.
        bare_bytes: that are needed without any base.

    Raises:
        InputError: the mode that is asked for is not available.
        DoesNotFit: none fits; training would run out of memory.
    """
    ways = candidates.ways if asked == "auto" else [way for way in candidates.ways if way == asked]
    if not ways:
        available = ", ".join(candidates.ways)
        raise InputError(
            f"train.memory = {asked!r} is not available for this base on this device, which can train in: {available}",
            "Set train.memory = 'auto'",
        )
    needed: dict[MemoryWay, int] = {}
    tried: list[MemoryChoice] = []
    for way in ways:
        for pack in candidates.packs:
            group = pack
            needed[way] = estimate(way, pack, group)
            tried.append(MemoryChoice(way, pack, group, needed[way]))
            if needed[way] > candidates.limit:
                continue
            while way == "stream" and group < candidates.most_group:
                if estimate(way, pack, group + pack) > candidates.limit:
                    break
                group += pack
            return MemoryChoice(way, pack, group, estimate(way, pack, group))
    keep, recompute, stream = (needed[way] / 1e9 if way in needed else None for way in get_args(MemoryWay))
    reason = planning.TrainingDoesNotFit(candidates.limit / 1e9, keep, recompute, stream, bare_gb=bare_bytes / 1e9)
    raise DoesNotFit(reason, remedy, min(tried, key=lambda one: one.bytes), candidates.limit)
