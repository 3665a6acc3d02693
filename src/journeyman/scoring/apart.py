"""Checks that run apart from this process, in the children of bounded.py, as checks like any other."""

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
    """A check of the table, apart. It sees neither this process's keys nor its files; it has 5 s of processor time."""

    @wraps(plain)
    def check(answer: Answer) -> CheckResult:
        try:
            return _finding(name, bounded(_TABLE).ask({"do": "check", "name": name, "answer": _sent(answer)}))
        except Broken as broken:
            return _unanswered(name, broken)

    return check


def data_fault(names: Sequence[str], data: Mapping[str, Any]) -> str | None:
    """Why one of these checks can never decide on a row with these data; None where all can."""
    try:
        reply = bounded(_TABLE).ask({"do": "fault", "names": list(names), "data": dict(data)})
    except Broken as broken:
        return f"looking at check: it {broken}"
    except RecursionError:
        return "check: nested too deep"
    return reply.get("raised", reply.get("fault"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RowFaults:
    """Why a row's check data can never decide, by the checks of its role. Goes along to worker processes.

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
    """Schemas and patterns are the same in many rows."""
    return data_fault(names, json.loads(data))


@cache
def own_check(name: str, folder: Path, limit_s: float) -> Check:
    """A check of the person's own, `file.py:function` or `inspect:SCORER`, with `limit_s` by the clock for each answer.

    Raises:
        UsageError: there is none, or it cannot be loaded.
    """
    child = bounded(Bounds(cpu_s=None, wall_s=limit_s, memory_bytes=None, own=True))
    load = {"do": "load", "name": name, "folder": str(folder.resolve())}
    try:
        loaded = child.ask_prepared(load)
    except Broken as broken:
        raise UsageError(f"check {name!r}: loading it: {broken}", "Fix that file and run the command again") from broken
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
    """`setting` is the key that raises the limit of time; "" where none does."""
    if broken.seconds is None:
        return CheckResult("unscored", CheckDied(name, str(broken)))
    return CheckResult("unscored", CheckOutOfTime(name, broken.seconds, broken.clock, setting))
