"""catches_mutants: the answer's tests pass on the row's `right` code and fail on each of its `wrong` ones."""

from __future__ import annotations

from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, Finding
from journeyman.scoring.sandbox import run_written_tests


def catches_mutants(answer: Answer) -> Finding:
    right, wrong = answer.data.get("right"), answer.data.get("wrong")
    if not isinstance(right, str) or not isinstance(wrong, list) or not wrong:
        return Finding("unscored", "the row has no check.right and check.wrong")
    tests = python_source(answer.text)

    def run(implementation: str) -> tuple[bool | None, str]:
        result = run_written_tests(implementation, tests, answer.limits)
        return result.passed, result.detail

    passed, detail = run(right)
    if passed is None:
        return Finding("unscored", detail)
    if not passed:
        return Finding("fail", f"fails on right code: {detail}")
    for number, mutant in enumerate(wrong, start=1):
        if run(mutant)[0]:
            return Finding("fail", f"passes on wrong code {number} of {len(wrong)}")
    return Finding("pass")
