"""answered: the model ended its answer by itself, and there is one."""

from __future__ import annotations

from journeyman.scoring.checks import Answer, Finding


def answered(answer: Answer) -> Finding:
    if not answer.text.strip() and not answer.calls:
        return Finding("fail", "empty answer")
    if answer.finish_reason not in ("stop", "tool_calls"):
        return Finding("fail", f"did not end by itself: {answer.finish_reason}")
    return Finding("pass")
