"""contains: every text in the row's `contains` occurs in the answer."""

from __future__ import annotations

from journeyman.reasons.checking import DataMissing
from journeyman.reasons.scoring import TextMissing
from journeyman.scoring.contracts import Answer, CheckResult


def contains(answer: Answer) -> CheckResult:
    wanted = answer.data.get("contains")
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return CheckResult("unscored", DataMissing("contains"))
    missing = [text for text in texts if text not in answer.text]
    return CheckResult("fail", TextMissing(missing[0])) if missing else CheckResult("pass")
