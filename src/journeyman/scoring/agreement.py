"""How far a judge agrees with the checks that need no opinion, on answers where both decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.manifests import JudgeAgreement
from journeyman.records import TEACHER, Score
from journeyman.scoring.checks import JUDGE
from journeyman.stats.rates import kappa, wilson

_SAYS_NOTHING_OF_CONTENT = {"answered"}


def judge_agreement(verdicts: Sequence[Score], confidence: float) -> list[JudgeAgreement]:
    """One entry for each role whose checks name a judge and another check of content.

    The teacher's answers do not count: the judge compares with those.
    """
    seen: dict[str, Counter[tuple[str, str]]] = {}
    for verdict in verdicts:
        if JUDGE in verdict.checks and verdict.arm != TEACHER and (others := _others(verdict.checks)) is not None:
            seen.setdefault(verdict.role, Counter())[verdict.checks[JUDGE], others] += 1
    return [_agreement(role, counts, confidence) for role, counts in sorted(seen.items())]


def _others(checks: Mapping[str, str]) -> str | None:
    """The other checks taken together; None where there is none that judges content, or one cannot decide."""
    outcomes = [outcome for name, outcome in checks.items() if name not in {JUDGE, *_SAYS_NOTHING_OF_CONTENT}]
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
