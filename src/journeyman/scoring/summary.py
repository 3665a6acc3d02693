"""Sums up what the checks said: each arm of a role with its interval, and tuned row by row against the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.manifests import ArmSummary, Paired, Rate, RoleSummary
from journeyman.records import ARMS, Prediction, Verdict
from journeyman.stats.describe import bootstrap_mean, mean, median, percentile
from journeyman.stats.rates import mcnemar, paired_difference, wilson

_MOST_FAILURES = 20


def summarize(
    role: str, predictions: Sequence[Prediction], verdicts: Sequence[Verdict], confidence: float
) -> RoleSummary:
    """One role's result; the role "all" pools every row."""
    of_role = [v for v in verdicts if role in ("all", v.role)]
    known = {"base", "tuned", *(v.arm for v in verdicts)}
    arms = [arm for arm in ARMS if arm in known]
    outcomes = {arm: {v.id: v.outcome for v in of_role if v.arm == arm} for arm in arms}
    failures = {
        arm: Counter(f"{v.check}: {v.detail}" for v in of_role if v.arm == arm and v.outcome == "fail") for arm in arms
    }
    asked = {arm: [p for p in predictions if p.arm == arm and role in ("all", p.role)] for arm in arms}
    return RoleSummary(
        rows=len({v.id for v in of_role}),
        arms={arm: _arm(asked[arm], list(outcomes[arm].values()), failures[arm], confidence) for arm in arms},
        versus={arm: _pair(outcomes["tuned"], outcomes[arm], confidence) for arm in arms if arm != "tuned"},
    )


def _arm(
    predictions: Sequence[Prediction], outcomes: Sequence[str], failures: Counter[str], confidence: float
) -> ArmSummary:
    passed, scored = outcomes.count("pass"), outcomes.count("pass") + outcomes.count("fail")
    rate = None
    if scored:
        low, high = wilson(passed, scored, confidence)
        rate = Rate(passed=passed, n=scored, low=low, high=high)
    latencies = [p.latency_s for p in predictions if p.latency_s is not None]
    interval = bootstrap_mean(latencies, confidence)
    return ArmSummary(
        success=rate,
        unscored=outcomes.count("unscored"),
        failures=dict(failures.most_common(_MOST_FAILURES)),
        mean_latency_s=mean(latencies),
        p50_latency_s=median(latencies),
        p95_latency_s=percentile(latencies, 0.95),
        mean_latency_high_s=interval[1] if interval else None,
        first_token_s=mean([p.first_token_s for p in predictions if p.first_token_s is not None]),
        tokens_per_s=_speed(predictions),
    )


def _speed(predictions: Sequence[Prediction]) -> float | None:
    """Over all answers together, so that short ones do not outweigh long ones."""
    tokens, seconds = 0, 0.0
    for p in predictions:
        if p.latency_s is not None and p.first_token_s is not None and p.answer_tokens > 1:
            tokens += p.answer_tokens - 1
            seconds += p.latency_s - p.first_token_s
    return tokens / seconds if seconds > 0 else None


def _pair(tuned: Mapping[str, str], other: Mapping[str, str], confidence: float) -> Paired:
    both = [
        (outcome == "pass", other[row] == "pass") for row, outcome in tuned.items() if _judged(outcome, other.get(row))
    ]
    wins, losses = sum(a and not b for a, b in both), sum(b and not a for a, b in both)
    low, high = paired_difference(wins, losses, len(both), confidence) if both else (None, None)
    return Paired(
        wins=wins,
        losses=losses,
        ties=len(both) - wins - losses,
        p_value=mcnemar(wins, losses),
        difference=(wins - losses) / len(both) if both else None,
        low=low,
        high=high,
    )


def _judged(*outcomes: str | None) -> bool:
    return all(outcome in ("pass", "fail") for outcome in outcomes)
