"""python_tests: the answer's code runs and passes the row's `tests`, Python source with assertions."""

from __future__ import annotations

from journeyman.reasons.checking import DataMissing
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.sandbox import run_tests


def python_tests(answer: Answer) -> CheckResult:
    tests = answer.data.get("tests")
    if not isinstance(tests, str):
        return CheckResult("unscored", DataMissing("tests"))
    result = run_tests(python_source(answer.text), tests, answer.limits)
    if result.passed is None:
        return CheckResult("unscored", result.reason)
    return CheckResult("pass") if result.passed else CheckResult("fail", result.reason)
