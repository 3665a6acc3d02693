"""similarity: the answer's words are similar to those of the teacher's answer (or of the row's `expected`).

The measure is ROUGE-L (Lin, 2004): the F1 score of the longest common subsequence of words. A row's `similarity` sets
the lowest value that passes, from 0 to 1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from journeyman.reasons.checking import DataOfOtherType, NothingExpected
from journeyman.reasons.scoring import Resemblance
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.exact import normal_form

LEAST = 0.5


def similarity(answer: Answer) -> CheckResult:
    expected = normal_form(answer.expected_text()).split()
    if not expected:
        return CheckResult("unscored", NothingExpected())
    least = answer.data.get("similarity", LEAST)
    if not isinstance(least, int | float) or not 0 <= least <= 1:
        return CheckResult("unscored", DataOfOtherType("similarity", "a number from 0 to 1"))
    reached = rouge_l(normal_form(answer.text).split(), expected)
    return CheckResult("pass" if reached >= least else "fail", Resemblance(reached, float(least)))


def rouge_l(found: Sequence[str], expected: Sequence[str]) -> float:
    """The F1 score of the longest common subsequence; 0 if either is empty."""
    common = _common_subsequence(found, expected)
    return 2 * common / (len(found) + len(expected)) if common else 0.0


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Its length, by Hunt and Szymanski (1977): the longest increasing sequence of matching places."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(right):
        places[word].append(place)
    ends: list[int] = []
    for word in left:
        for place in reversed(places.get(word, ())):
            at = bisect_left(ends, place)
            if at == len(ends):
                ends.append(place)
            else:
                ends[at] = place
    return len(ends)
