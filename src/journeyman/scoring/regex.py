"""regex: the row's `pattern` matches somewhere in the answer (multi-line mode)."""

from __future__ import annotations

from journeyman.reasons.checking import DataMissing
from journeyman.reasons.scoring import NoMatch
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.row_data import BadData, pattern_of


def regex(answer: Answer) -> CheckResult:
    if "pattern" not in answer.data:
        return CheckResult("unscored", DataMissing("pattern"))
    try:
        pattern = pattern_of(answer.data)
    except BadData as error:
        return CheckResult("unscored", error.reason)
    if pattern.search(answer.text):
        return CheckResult("pass")
    return CheckResult("fail", NoMatch(pattern.pattern[:200]))
