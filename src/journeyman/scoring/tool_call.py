"""tool_call: the answer calls the right tools with the right arguments.

Right are the row's `calls` (a list of {name, arguments}), or the teacher's. Arguments are compared as JSON
values: neither the order of keys nor white space counts, and 1 is 1.0. The order of calls does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.scoring.contracts import Answer, Finding


def tool_call(answer: Answer) -> Finding:
    expected = _expected(answer)
    if expected is None:
        return Finding("unscored", "neither check.calls nor the teacher says which call is expected")
    found = [(call.name, call.arguments) for call in answer.calls]
    if not expected:
        return Finding("fail", f"calls {found[0][0]}; the teacher calls nothing") if found else Finding("pass")
    left = list(found)
    for name, arguments in expected:
        if (name, arguments) in left:
            left.remove((name, arguments))
            continue
        same_name = next((other for other, _ in left if other == name), None)
        if same_name is None:
            said = ", ".join(other for other, _ in found) or "nothing"
            return Finding("fail", f"does not call {name}; calls {said}")
        given = next(values for other, values in left if other == name)
        return Finding("fail", f"{name}: {_difference(given, arguments)}")
    return Finding("fail", f"calls {left[0][0]} besides") if left else Finding("pass")


def _expected(answer: Answer) -> list[tuple[str, Any]] | None:
    calls = answer.data.get("calls")
    if isinstance(calls, list) and all(isinstance(call, Mapping) and "name" in call for call in calls):
        return [(str(call["name"]), call.get("arguments", {})) for call in calls]
    if answer.reference is None:
        return None
    return [(call.name, call.arguments) for call in answer.reference_calls]


def _difference(found: Any, expected: Any) -> str:
    if not isinstance(found, Mapping) or not isinstance(expected, Mapping):
        return f"arguments {str(found)[:100]!r}, not {str(expected)[:100]!r}"
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key) or (key in found) != (key in expected):
            said = repr(found[key])[:80] if key in found else "missing"
            wanted = repr(expected[key])[:80] if key in expected else "not asked for"
            return f"argument {key} is {said}, expected {wanted}"
    return "arguments differ"
