"""contains: every text of the row's `contains` stands in the answer."""

from __future__ import annotations

from journeyman.scoring.contracts import Answer, Finding


def contains(answer: Answer) -> Finding:
    wanted = answer.data.get("contains")
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return Finding("unscored", "the row has no check.contains")
    missing = [text for text in texts if text not in answer.text]
    return Finding("fail", f"missing: {missing[0]!r}") if missing else Finding("pass")
