"""regex: the row's `pattern` is found in the answer (multi-line mode)."""

from __future__ import annotations

import re

from journeyman.scoring.checks import Answer, Finding


def regex(answer: Answer) -> Finding:
    pattern = answer.data.get("pattern")
    if not isinstance(pattern, str):
        return Finding("unscored", "the row has no check.pattern")
    if re.search(pattern, answer.text, re.MULTILINE):
        return Finding("pass")
    return Finding("fail", f"nothing matches {pattern!r}")
