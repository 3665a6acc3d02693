"""answered: the answer is not empty, the model ended it on its own, and it is not a refusal."""

from __future__ import annotations

from journeyman.reasons.scoring import CutOff, EmptyAnswer, NotEnded, RefusedAnswer
from journeyman.refusals import refusal
from journeyman.scoring.contracts import Answer, CheckResult

ENDINGS = ("stop", "tool_calls")
"""Finish reasons of an answer that the model ended on its own."""


def answered(answer: Answer) -> CheckResult:
    if not answer.text.strip() and not answer.calls:
        return CheckResult("fail", EmptyAnswer())
    if sign := refusal(answer.text, answer.finish_reason):
        return CheckResult("fail", RefusedAnswer(sign))
    if answer.finish_reason not in ENDINGS:
        cut = answer.finish_reason == "length"
        return CheckResult("fail", CutOff() if cut else NotEnded(answer.finish_reason))
    return CheckResult("pass")
