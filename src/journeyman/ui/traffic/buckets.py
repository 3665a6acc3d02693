"""Counts over time, in parts of several lengths, each kept for as long as it is useful: memory has a bound."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

SPANS = {"3h": (60, 180), "24h": (600, 144), "7d": (3600, 168), "60d": (21_600, 240), "1000d": (345_600, 250)}
"""What a chart shows → seconds of a bucket, and how many there are."""
KINDS = ("teacher", "student", "fallback")
"""Who answered; fallback: the teacher, in the student's place."""
_SPARE = 50
_AHEAD_S = 3600
_EARLIEST_S = 1_577_836_800  # 2020


@lru_cache(256)
def _minute(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(f"{text}:00{zone}").timestamp()) // 60


def minute_of(at: str) -> int | None:
    """The minute of a time in ISO 8601, counted from 1970; None if it is no time."""
    try:
        return _minute(at[:16], "+00:00" if at.endswith(("+00:00", "Z")) else at[-6:])
    except ValueError:
        return None


class Buckets:
    """Counts of one role, by kind.

    Attributes:
        first, last: the earliest and the latest minute; -1: there is none.
    """

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, list[int]]] = {span: {} for span in SPANS}
        self._minute = self.first = self.last = -1
        self._counts = [0] * len(KINDS)

    def add(self, minute: int, kind: int) -> None:
        if minute != self._minute:
            self._flush()
            self._minute, self.last = minute, max(minute, self.last)
            self.first = minute if self.first < 0 else min(minute, self.first)
        self._counts[kind] += 1

    def _flush(self) -> None:
        if not any(self._counts):
            return
        for span, (width, most) in SPANS.items():
            part = self._parts[span]
            known = part.setdefault(self._minute * 60 // width, [0] * len(KINDS))
            for kind, count in enumerate(self._counts):
                known[kind] += count
            if len(part) > most + _SPARE:
                for key in sorted(part)[: len(part) - most]:
                    del part[key]
        self._counts = [0] * len(KINDS)

    def series(self, span: str, last: int, cut: int = 0) -> dict[str, list[int]]:
        """Counts by kind of the buckets that end with that of minute `last`, without the first `cut`."""
        self._flush()
        width, most = SPANS[span]
        end = last * 60 // width
        part = self._parts[span]
        rows = [part.get(key, (0,) * len(KINDS)) for key in range(end - most + 1 + cut, end + 1)]
        return {kind: [row[place] for row in rows] for place, kind in enumerate(KINDS)}


def starts(span: str, last: int) -> list[int]:
    """When each bucket of `series` begins, in seconds since 1970."""
    width, most = SPANS[span]
    end = last * 60 // width
    return [key * width for key in range(end - most + 1, end + 1)]


def shortest(first: int, last: int, spans: Sequence[str] = tuple(SPANS)) -> str:
    """The shortest span that shows all minutes from `first` to `last`."""
    return next((one for one in spans if (last - first) * 60 < SPANS[one][0] * SPANS[one][1]), spans[-1])


def is_wrong(minute: int) -> bool:
    """Whether a clock must have been wrong: the time lies ahead, or before anything was recorded."""
    return not _EARLIEST_S <= minute * 60 <= time.time() + _AHEAD_S
