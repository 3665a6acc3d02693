"""python_runs: the answer's code runs to its end in the sandbox without an error."""

from __future__ import annotations

from journeyman.reasons.scoring import NoCode
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.sandbox import run_sources


def python_runs(answer: Answer) -> CheckResult:
    source = python_source(answer.text)
    if not source.strip():
        return CheckResult("fail", NoCode())
    result = run_sources([("answer", source)], answer.limits)
    if result.passed is None:
        return CheckResult("unscored", result.reason)
    return CheckResult("pass") if result.passed else CheckResult("fail", result.reason)
