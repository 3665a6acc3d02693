"""The table of checks: name → function. One check per file; each says pass, fail or unscored, and why.

A check sees the answer as it came from the engine and the row's `check` data. It never sees the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.records import ToolCall
from journeyman.scoring.sandbox import Limits

Outcome = Literal["pass", "fail", "unscored"]


@dataclass(frozen=True)
class Answer:
    """What is judged: the text and tool calls, why generation ended, and the row's check data."""

    text: str
    finish_reason: str
    data: Mapping[str, Any]
    limits: Limits
    calls: Sequence[ToolCall] = ()


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    outcome: Outcome
    detail: str = ""


Check = Callable[[Answer], Finding]


def check_table() -> Mapping[str, Check]:
    """All checks by the name that journeyman.toml uses."""
    from journeyman.scoring.answered import answered
    from journeyman.scoring.catches_mutants import catches_mutants
    from journeyman.scoring.json_schema import json_schema
    from journeyman.scoring.python_parses import python_parses
    from journeyman.scoring.python_tests import python_tests
    from journeyman.scoring.regex import regex

    checks = (answered, regex, python_parses, python_tests, catches_mutants, json_schema)
    return {check.__name__: check for check in checks}


def judge(answer: Answer, names: Sequence[str]) -> tuple[str, Finding]:
    """Applies the named checks in order; the first that does not pass decides.

    Returns:
        The deciding check's name and its finding.
    """
    table = check_table()
    name, finding = "", Finding("unscored", "the role has no checks")
    for name in names:
        finding = table[name](answer)
        if finding.outcome != "pass":
            break
    return name, finding
