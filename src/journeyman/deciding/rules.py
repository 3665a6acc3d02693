"""The plan's rules, one function each: evidence → pass, fail or unknown, with the figures as the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from journeyman.manifests import ArmSummary, Paired, RegressionResult, RuleResult
from journeyman.reasons import Reason
from journeyman.reasons import deciding as why

Outcome = Literal["pass", "fail", "unknown"]


def success(arm: ArmSummary, threshold: float) -> RuleResult:
    """Passes if the whole interval is at or above the threshold, fails if all of it is below."""
    rate = arm.success
    if rate is None:
        return _result("success", "unknown", why.SuccessNotKnown(arm.unscored, threshold))
    outcome: Outcome = "pass" if rate.low >= threshold else "fail" if rate.high < threshold else "unknown"
    if arm.unscored:
        # Unscored answers may be wrong, so they never count in favor of a deployment.
        outcome = "fail" if outcome == "fail" else "unknown"
    seen = why.SuccessSeen(rate.passed, rate.n, rate.low, rate.high, rate.effective_n, arm.unscored, threshold)
    return _result("success", outcome, seen)


def latency(arm: ArmSummary, limit: float) -> RuleResult:
    """Passes if the mean's whole interval is below the limit, fails if the mean is not below it."""
    speed = arm.speed
    if speed is None:
        return _result("latency", "unknown", why.LatencyNotMeasured(limit))
    high = speed.mean_high_s
    outcome: Outcome = "fail" if speed.mean_s >= limit else "pass" if high is not None and high < limit else "unknown"
    return _result("latency", outcome, why.LatencySeen(speed.mean_s, high, speed.n, limit))


def memory(value: float | None, limit: float) -> RuleResult:
    """Compares the serving process's peak memory in GB (10^9 bytes), `value`, with the limit."""
    if value is None:
        return _result("memory", "unknown", why.MemoryNotMeasured(limit))
    return _result("memory", "pass" if value <= limit else "fail", why.MemorySeen(value, limit))


def not_inferior(paired: Paired | None, margin: float) -> RuleResult:
    """Passes if the whole interval of the difference from the teacher is above minus the margin."""
    if paired is None or paired.difference is None or paired.low is None or paired.high is None:
        return _result("teacher", "unknown", why.NotComparedWithTeacher(margin))
    outcome: Outcome = "pass" if paired.low > -margin else "fail" if paired.high <= -margin else "unknown"
    return _result("teacher", outcome, why.AgainstTeacher(paired.difference, paired.low, paired.high, margin))


def regressions(results: Mapping[str, RegressionResult], margin: float, confidence: float) -> list[RuleResult]:
    """A veto: fails if a part of the suite lost more than the margin, and more than chance explains.

    The suite is too small to prove that nothing was lost. Losses that it does not show pass, with the figures.
    """
    return [
        _result(
            f"regression {kind}",
            "fail" if _lost(one, margin, confidence) else "pass",
            why.RegressionSeen(one.tuned, one.base, one.n, one.losses, one.wins, one.p_value, margin),
        )
        for kind, one in results.items()
        if one.n
    ]


def _lost(one: RegressionResult, margin: float, confidence: float) -> bool:
    return one.fall > margin and one.p_value is not None and one.p_value < 1 - confidence


def _result(rule: str, outcome: Outcome, reason: Reason) -> RuleResult:
    return RuleResult(rule=rule, outcome=outcome, reason=reason.record())
