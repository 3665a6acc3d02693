"""answered: the model ended its answer by itself, there is one, and it is no refusal."""

from __future__ import annotations

from journeyman.refusals import refusal
from journeyman.scoring.contracts import Answer, Finding

ENDINGS = ("stop", "tool_calls")
"""Reasons for which a model ends an answer by itself."""


def answered(answer: Answer) -> Finding:
    if not answer.text.strip() and not answer.calls:
        return Finding("fail", "empty answer")
    if why := refusal(answer.text, answer.finish_reason):
        return Finding("fail", why)
    if answer.finish_reason not in ENDINGS:
        return Finding("fail", f"did not end by itself: {answer.finish_reason}")
    return Finding("pass")
