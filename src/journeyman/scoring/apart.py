"""Wraps the checks that run in a child process (see bounded.py), so that they are called like any other check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache, wraps
from pathlib import Path
from typing import Any

from journeyman.errors import UsageError
from journeyman.reasons import ReasonRecord
from journeyman.reasons.checking import CheckDied, CheckOutOfTime, CheckRaised
from journeyman.records import Interaction
from journeyman.scoring.bounded import Bounds, Broken, bounded
from journeyman.scoring.contracts import Answer, Check, CheckResult
from journeyman.scoring.row_data import KEYS, looks_at_data

_TABLE = Bounds()


def table_check(name: str, plain: Check) -> Check:
    """A built-in check, run in a child process without this process's keys and files, with 5 s of processor time."""

    @wraps(plain)
    def check(answer: Answer) -> CheckResult:
        try:
            return _finding(name, bounded(_TABLE).ask({"do": "check", "name": name, "answer": _sent(answer)}))
        except Broken as broken:
            return _unanswered(name, broken)

    return check


def data_fault(names: Sequence[str], data: Mapping[str, Any]) -> str | None:
    """Why one of these checks can never score a row with this data; None if all of them can."""
    try:
        reply = bounded(_TABLE).ask({"do": "fault", "names": list(names), "data": dict(data)})
    except Broken as broken:
        return f"reading check: {broken}"
    except RecursionError:
        return "check: nested too deeply"
    return reply.get("raised", reply.get("fault"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RowFaults:
    """Finds out why the checks of a row's role can never use the row's check data. Can be sent to worker processes.

    Attributes:
        checks: role → the names of its checks.
    """

    checks: Mapping[str, Sequence[str]]

    def __call__(self, row: Interaction) -> str | None:
        names = looks_at_data(self.checks.get(row.role, ()))
        data = {key: row.check[key] for name in names for key in KEYS[name] if key in row.check}
        return _fault(tuple(names), json.dumps(data, sort_keys=True)) if data else None


@lru_cache(maxsize=4096)
def _fault(names: Sequence[str], data: str) -> str | None:
    """Cached because many rows have the same schemas and patterns."""
    return data_fault(names, json.loads(data))


@cache
def own_check(name: str, folder: Path, limit_s: float) -> Check:
    """A user's own check, `file.py:function` or `inspect:SCORER`, with `limit_s` of wall time for each answer.

    Raises:
        UsageError: the check does not exist or cannot be loaded.
    """
    child = bounded(Bounds(cpu_s=None, wall_s=limit_s, memory_bytes=None, own=True))
    load = {"do": "load", "name": name, "folder": str(folder.resolve())}
    try:
        loaded = child.ask_prepared(load)
    except Broken as broken:
        raise UsageError(f"check {name!r} was not loaded: {broken}", "Fix that file, then run it again") from broken
    if "refused" in loaded:
        raise UsageError(*loaded["refused"])
    if "raised" in loaded:
        raise UsageError(f"check {name!r} cannot be loaded: {loaded['raised']}", "Fix that file")

    def check(answer: Answer) -> CheckResult:
        try:
            return _finding(name, child.ask_prepared(load, {**load, "do": "own", "answer": _sent(answer)}))
        except Broken as broken:
            return _unanswered(name, broken, "evaluate.check_timeout_s")

    return check


def _sent(answer: Answer) -> dict[str, Any]:
    sent = {name: getattr(answer, name) for name in ("text", "finish_reason", "reference", "task")}
    calls = {name: [one.model_dump() for one in getattr(answer, name)] for name in ("calls", "reference_calls")}
    return {**sent, **calls, "data": dict(answer.data), "limits": asdict(answer.limits)}


def _finding(name: str, reply: Mapping[str, Any]) -> CheckResult:
    if "raised" in reply:
        return CheckResult("unscored", CheckRaised(name, reply["raised"]))
    reason = reply["reason"]
    return CheckResult(reply["outcome"], None if reason is None else ReasonRecord.model_validate(reason).reason())


def _unanswered(name: str, broken: Broken, setting: str = "") -> CheckResult:
    """`setting` is the key that raises the time limit; "" if there is none."""
    if broken.seconds is None:
        return CheckResult("unscored", CheckDied(name, str(broken)))
    return CheckResult("unscored", CheckOutOfTime(name, broken.seconds, broken.clock, setting))
