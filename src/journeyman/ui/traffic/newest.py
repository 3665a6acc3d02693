"""Requests by role and outcome in the newest rows, where nothing has judged them: a bounded look at the rows alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic_core import from_json

from journeyman.foreign import named
from journeyman.gateway.rows import OUTCOMES
from journeyman.ui.traffic.figures import Waits
from journeyman.ui.traffic.rows import RowFinder

MOST_BYTES = 16 << 20
_MOST_ROLES = 100
_OTHERS = "other roles"


def newest_of(finder: RowFinder) -> dict[str, Any]:
    """Counts of the newest rows; raises as RowFinder.newest."""
    lines, everything, damaged = finder.newest(MOST_BYTES)
    roles: dict[str, dict[str, Any]] = {}
    unread, times = 0, list[str]()
    for line in lines:
        try:
            row = from_json(line)
            role, outcome = str(row.get("role") or ""), row["outcome"]
            waited, time = int(row.get("duration_ms") or 0), row.get("time")
        except (ValueError, TypeError, KeyError, AttributeError):
            unread += 1
            continue
        name = named(role) if role in roles or len(roles) < _MOST_ROLES else _OTHERS
        one = roles.setdefault(
            name, {"requests": 0, "outcomes": Counter(), "statuses": Counter(), "latency": Waits(), "tokens": 0}
        )
        one["requests"] += 1
        one["outcomes"][outcome if outcome in OUTCOMES else "unknown"] += 1
        status = row.get("status")
        one["statuses"][f"{status // 100}xx" if type(status) is int and 100 <= status < 600 else "none"] += 1
        if outcome == "complete":
            one["latency"].add(waited, row.get("first_ms") if type(row.get("first_ms")) is int else None)
        if isinstance(time, str):
            times.append(time)
    return {
        "rows": len(lines) - unread, "unread": unread, "everything": everything, "damaged": damaged,
        "most_mib": MOST_BYTES >> 20, "first": min(times, default=""), "last": max(times, default=""),
        "roles": [{"role": name, **one, "latency": one["latency"].figures()} for name, one in sorted(roles.items())],
        "outcomes": list(OUTCOMES),
    }  # fmt: skip
