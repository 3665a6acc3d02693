"""catches_mutants: the answer's tests pass on the row's `right` code and fail on each of its `wrong` variants."""

from __future__ import annotations

from journeyman.reasons.checking import DataMissing
from journeyman.reasons.scoring import FailsOnRightCode, PassesOnWrongCode
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, CheckResult, RunResult
from journeyman.scoring.sandbox import run_written_tests


def catches_mutants(answer: Answer) -> CheckResult:
    right, wrong = answer.data.get("right"), answer.data.get("wrong")
    if not isinstance(right, str) or not isinstance(wrong, list) or not wrong:
        return CheckResult("unscored", DataMissing("right and check.wrong"))
    tests = python_source(answer.text)

    def run(implementation: str) -> RunResult:
        return run_written_tests(implementation, tests, answer.limits)

    result = run(right)
    if result.passed is None:
        return CheckResult("unscored", result.reason)
    if not result.passed:
        return CheckResult("fail", FailsOnRightCode(result.reason.sentence() if result.reason else ""))
    for number, mutant in enumerate(wrong, start=1):
        if run(mutant).passed:
            return CheckResult("fail", PassesOnWrongCode(number, len(wrong)))
    return CheckResult("pass")
