"""How often a judge agrees with the objective checks, on the answers that both could score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.manifests import JudgeAgreement
from journeyman.records import TEACHER, Score
from journeyman.scoring.checks import JUDGE
from journeyman.stats.rates import kappa, wilson

_NOT_ABOUT_CONTENT = {"answered"}


def judge_agreement(scores: Sequence[Score], confidence: float) -> list[JudgeAgreement]:
    """One entry for each role whose checks include a judge and another check of the content.

    The teacher's answers are left out, because the judge compares answers with them.
    """
    seen: dict[str, Counter[tuple[str, str]]] = {}
    for score in scores:
        if JUDGE in score.checks and score.arm != TEACHER and (others := _others(score.checks)) is not None:
            seen.setdefault(score.role, Counter())[score.checks[JUDGE], others] += 1
    return [_agreement(role, counts, confidence) for role, counts in sorted(seen.items())]


def _others(checks: Mapping[str, str]) -> str | None:
    """The combined outcome of the other checks; None if none of them looks at the content, or one is unscored."""
    outcomes = [outcome for name, outcome in checks.items() if name not in {JUDGE, *_NOT_ABOUT_CONTENT}]
    if not outcomes:
        return None
    return "fail" if "fail" in outcomes else None if "unscored" in outcomes else "pass"


def _agreement(role: str, counts: Counter[tuple[str, str]], confidence: float) -> JudgeAgreement:
    both, neither = counts["pass", "pass"], counts["fail", "fail"]
    too_kind, too_strict = counts["pass", "fail"], counts["fail", "pass"]
    n = both + neither + too_kind + too_strict
    low, high = wilson(both + neither, n, confidence) if n else (None, None)
    return JudgeAgreement(
        role=role,
        n=n,
        agree=both + neither,
        too_kind=too_kind,
        too_strict=too_strict,
        unscored=sum(count for (said, _), count in counts.items() if said == "unscored"),
        low=low,
        high=high,
        kappa=kappa(both, neither, too_kind, too_strict),
    )
