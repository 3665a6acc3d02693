"""tool_call: the answer calls the expected tools with the expected arguments.

Expected are the row's `calls` (a list of {name, arguments}), or the teacher's. Arguments are compared as JSON values:
the order of keys and white space do not matter, and 1 equals 1.0. The order of calls does not matter either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.reasons import Reason
from journeyman.reasons.checking import NothingExpected
from journeyman.reasons.scoring import ArgumentDiffers, ArgumentsDiffer, CallMissing, CallsSomething, CallTooMany
from journeyman.scoring.contracts import Answer, CheckResult


def tool_call(answer: Answer) -> CheckResult:
    expected = _expected(answer)
    if expected is None:
        return CheckResult("unscored", NothingExpected("calls"))
    found = [(call.name, call.arguments) for call in answer.calls]
    if not expected:
        return CheckResult("fail", CallsSomething(found[0][0])) if found else CheckResult("pass")
    left = list(found)
    for name, arguments in expected:
        if (name, arguments) in left:
            left.remove((name, arguments))
            continue
        same_name = next((other for other, _ in left if other == name), None)
        if same_name is None:
            return CheckResult("fail", CallMissing(name, ", ".join(other for other, _ in found)))
        given = next(values for other, values in left if other == name)
        return CheckResult("fail", _difference(name, given, arguments))
    return CheckResult("fail", CallTooMany(left[0][0])) if left else CheckResult("pass")


def _expected(answer: Answer) -> list[tuple[str, Any]] | None:
    calls = answer.data.get("calls")
    if isinstance(calls, list) and all(isinstance(call, Mapping) and "name" in call for call in calls):
        return [(str(call["name"]), call.get("arguments", {})) for call in calls]
    if answer.reference is None:
        return None
    return [(call.name, call.arguments) for call in answer.reference_calls]


def _difference(name: str, found: Any, expected: Any) -> Reason:
    if not isinstance(found, Mapping) or not isinstance(expected, Mapping):
        return ArgumentsDiffer(name, str(found)[:100], str(expected)[:100])
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key) or (key in found) != (key in expected):
            said, wanted = (repr(one[key])[:80] if key in one else None for one in (found, expected))
            return ArgumentDiffers(name, str(key), said, wanted)
    return ArgumentsDiffer(name, str(found)[:100], str(expected)[:100])
