"""exact and normalized: the answer equals the row's `expected` text, or the teacher's answer if the row has none."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable

from journeyman.reasons.checking import DataOfOtherType, NothingExpected
from journeyman.reasons.scoring import Differs
from journeyman.scoring.contracts import Answer, CheckResult


def exact(answer: Answer) -> CheckResult:
    return _compare(answer, str.strip)


def normalized(answer: Answer) -> CheckResult:
    """Ignores case, punctuation at the ends of words, and differences in white space (Unicode NFKC)."""
    return _compare(answer, normal_form)


def normal_form(text: str) -> str:
    words = (word.strip(string.punctuation) for word in unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(word for word in words if word)


def _compare(answer: Answer, form: Callable[[str], str]) -> CheckResult:
    if not isinstance(answer.data.get("expected", ""), str):
        return CheckResult("unscored", DataOfOtherType("expected", "text"))
    found, expected = form(answer.text), form(answer.expected_text())
    if not expected:
        return CheckResult("unscored", NothingExpected())
    if found == expected:
        return CheckResult("pass")
    place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
    if place is None:
        place = min(len(found), len(expected))
    return CheckResult("fail", Differs(place, found[place:][:30], expected[place:][:30]))
