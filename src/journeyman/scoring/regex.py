"""regex: the row's `pattern` is found in the answer (multi-line mode)."""

from __future__ import annotations

from journeyman.scoring.contracts import Answer, Finding
from journeyman.scoring.row_data import BadData, pattern_of


def regex(answer: Answer) -> Finding:
    if "pattern" not in answer.data:
        return Finding("unscored", "the row has no check.pattern")
    try:
        pattern = pattern_of(answer.data)
    except BadData as error:
        return Finding("unscored", str(error))
    if pattern.search(answer.text):
        return Finding("pass")
    return Finding("fail", f"nothing matches {pattern.pattern[:200]!r}")
