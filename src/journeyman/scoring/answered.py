"""answered: the model ended its answer by itself, there is one, and it is no refusal."""

from __future__ import annotations

from journeyman.reasons.scoring import CutOff, EmptyAnswer, NotEnded, RefusedAnswer
from journeyman.refusals import refusal
from journeyman.scoring.contracts import Answer, CheckResult

ENDINGS = ("stop", "tool_calls")
"""Reasons for which a model ends an answer by itself."""


def answered(answer: Answer) -> CheckResult:
    if not answer.text.strip() and not answer.calls:
        return CheckResult("fail", EmptyAnswer())
    if sign := refusal(answer.text, answer.finish_reason):
        return CheckResult("fail", RefusedAnswer(sign))
    if answer.finish_reason not in ENDINGS:
        cut = answer.finish_reason == "length"
        return CheckResult("fail", CutOff() if cut else NotEnded(answer.finish_reason))
    return CheckResult("pass")
