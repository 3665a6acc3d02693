"""python_parses: the answer's Python code is valid syntax and not empty."""

from __future__ import annotations

import ast

from journeyman.reasons.scoring import NoCode, SyntaxInvalid
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, CheckResult


def python_parses(answer: Answer) -> CheckResult:
    try:
        tree = ast.parse(python_source(answer.text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return CheckResult("fail", SyntaxInvalid(f"{type(error).__name__}: {error}"[:300]))
    if not tree.body:
        return CheckResult("fail", NoCode())
    return CheckResult("pass")
