"""What is counted of one role's exchanges and conversations."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from journeyman.ui.traffic.buckets import KINDS, Buckets

NEWEST = 1000
"""Latencies are those of so many answers at most, the newest."""
_MOST_CODES = 40
_LONGEST_CODE = 80
_OTHER = "other"


class Codes:
    """How often each code occurred; of many codes, those beyond a limit count as "other"."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, code: str) -> None:
        code = code[:_LONGEST_CODE]
        known = code in self._counts or len(self._counts) < _MOST_CODES
        self._counts[code if known else _OTHER] += 1

    def listed(self) -> list[dict[str, Any]]:
        return [{"code": code, "n": count} for code, count in self._counts.most_common()]


class Waits:
    """How long the newest answers took, and their first bytes."""

    def __init__(self) -> None:
        self._whole: deque[int] = deque(maxlen=NEWEST)
        self._first: deque[int] = deque(maxlen=NEWEST)

    def add(self, whole_ms: int, first_ms: int | None) -> None:
        self._whole.append(whole_ms)
        if first_ms is not None:
            self._first.append(first_ms)

    def figures(self) -> dict[str, Any]:
        whole, first = sorted(self._whole), sorted(self._first)
        return {
            "n": len(whole), "p50_s": quantile(whole, 0.5), "p95_s": quantile(whole, 0.95),
            "first_n": len(first), "first_p50_s": quantile(first, 0.5), "first_p95_s": quantile(first, 0.95),
        }  # fmt: skip


def quantile(ordered: Sequence[int], share: float) -> float | None:
    """The smallest value that at least this share of all does not exceed, in seconds; None of nothing."""
    if not ordered:
        return None
    place = -int(-share * len(ordered) // 1) - 1
    return ordered[max(0, place)] / 1000


class RoleTraffic:
    """One role."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(KINDS, 0)
        self.scored = dict.fromkeys(KINDS, 0)
        self.failed = dict.fromkeys(KINDS, 0)
        self.waits = {name: Waits() for name in (*KINDS, "undelivered")}
        self.undelivered = {"shadow": 0, "fallback": 0}
        self.fallbacks, self.failures = Codes(), Codes()
        self.buckets, self.without_time = Buckets(), 0
        self.tokens = dict.fromkeys(KINDS, 0)

    def delivered(self, kind: str, row: dict[str, Any], minute: int | None) -> None:
        """Counts an answer that a client got."""
        self.requests[kind] += 1
        failed = row.get("failed")
        if failed is not None:
            self.scored[kind] += 1
            self.failed[kind] += bool(failed)
        if kind == "fallback":
            self.fallbacks.add(str(row["fallback"]))
        elif failed:
            self.failures.add(f"{kind}: {row.get('why') or '?'}")
        self.tokens[kind] += row.get("prompt_tokens", 0) + row.get("answer_tokens", 0)
        if row.get("outcome") == "complete":
            self.waits[kind].add(row.get("duration_ms", 0), row.get("first_ms"))
        if minute is None:
            self.without_time += 1
        else:
            self.buckets.add(minute, KINDS.index(kind))

    def not_delivered(self, row: dict[str, Any]) -> None:
        """Counts an answer of the student that no client got."""
        self.undelivered["fallback" if row.get("place") == "fallback" else "shadow"] += 1
        if row.get("outcome") == "complete":
            self.waits["undelivered"].add(row.get("duration_ms", 0), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests, "scored": self.scored, "failed": self.failed, "tokens": self.tokens,
            "undelivered": self.undelivered, "fallbacks": self.fallbacks.listed(), "failures": self.failures.listed(),
            "latency": {name: one.figures() for name, one in self.waits.items()}, "without_time": self.without_time,
        }  # fmt: skip


class RoleConversations:
    """Conversations of one role that are over, by arm."""

    def __init__(self) -> None:
        self.arms = {arm: {"n": 0, "scored": 0, "failed": 0.0} for arm in ("teacher", "student")}
        self.by, self.why = Codes(), Codes()
        self.buckets, self.without_time = Buckets(), 0

    def add(self, row: dict[str, Any], minute: int | None) -> None:
        arm = "student" if row["arm"] == "student" else "teacher"
        counts, failed = self.arms[arm], row.get("failed")
        counts["n"] += 1
        if failed is not None:
            counts["scored"] += 1
            counts["failed"] += float(failed)
        self.by.add(str(row.get("by") or "unscored"))
        if row.get("why"):
            self.why.add(f"{arm}: {row['why']}")
        if minute is None:
            self.without_time += 1
        else:
            self.buckets.add(minute, KINDS.index("fallback" if row.get("fallbacks") else arm))

    def as_json(self) -> dict[str, Any]:
        return {
            "arms": self.arms, "by": self.by.listed(), "why": self.why.listed(), "without_time": self.without_time,
        }  # fmt: skip
