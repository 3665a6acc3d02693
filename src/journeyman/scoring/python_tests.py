"""python_tests: the answer's code runs and passes the row's `tests`, a Python source of assertions."""

from __future__ import annotations

from journeyman.reasons.checking import DataMissing
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, Finding
from journeyman.scoring.sandbox import run_tests


def python_tests(answer: Answer) -> Finding:
    tests = answer.data.get("tests")
    if not isinstance(tests, str):
        return Finding("unscored", DataMissing("tests"))
    result = run_tests(python_source(answer.text), tests, answer.limits)
    if result.passed is None:
        return Finding("unscored", result.reason)
    return Finding("pass") if result.passed else Finding("fail", result.reason)
