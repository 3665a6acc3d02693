"""The plan's rules, one function each: evidence → pass, fail or unknown, and the reason in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from journeyman.manifests import ArmSummary, Paired, ProbeResult, RuleResult

Outcome = Literal["pass", "fail", "unknown"]


def success(arm: ArmSummary, threshold: float) -> RuleResult:
    """Passed where the whole interval lies at or above the threshold, failed where it lies wholly below."""
    rate = arm.success
    asked = f"asked ≥ {threshold * 100:g}%"
    if rate is None:
        reason = f"{arm.unscored} rows unscored" if arm.unscored else "no test rows"
        return RuleResult(rule="success", outcome="unknown", reason=f"{reason}, {asked}")
    seen = f"{rate.passed} of {rate.n} ({rate.low:.0%}–{rate.high:.0%}), {asked}"
    if rate.effective_n < rate.n:
        seen += f"; rows that belong together: they count as {rate.effective_n:.1f}"
    outcome: Outcome = "pass" if rate.low >= threshold else "fail" if rate.high < threshold else "unknown"
    if arm.unscored:
        # What could not be judged may be failure: it never counts towards a deployment.
        outcome, seen = "fail" if outcome == "fail" else "unknown", f"{seen}; {arm.unscored} rows unscored"
    return RuleResult(rule="success", outcome=outcome, reason=seen)


def latency(arm: ArmSummary, limit: float) -> RuleResult:
    """Passed where the whole interval of the mean lies below the limit, failed where the mean does not."""
    speed, asked = arm.speed, f"limit {limit:g} s mean"
    if speed is None:
        return RuleResult(rule="latency", outcome="unknown", reason=f"not measured, {asked}")
    high = speed.mean_high_s
    outcome: Outcome = "fail" if speed.mean_s >= limit else "pass" if high is not None and high < limit else "unknown"
    end = f"up to {high:.2f}" if high is not None else f"of {speed.n}, too few for an interval"
    return RuleResult(rule="latency", outcome=outcome, reason=f"{speed.mean_s:.2f} ({end}), {asked}")


def memory(value: float | None, limit: float) -> RuleResult:
    """The peak of the serving process."""
    if value is None:
        return RuleResult(rule="memory", outcome="unknown", reason=f"not measured, limit {limit:g} GB peak")
    outcome: Outcome = "pass" if value <= limit else "fail"
    return RuleResult(rule="memory", outcome=outcome, reason=f"{value:.2f}, limit {limit:g} GB peak")


def not_inferior(paired: Paired | None, margin: float) -> RuleResult:
    """Passed where the whole interval of the difference to the teacher lies above minus the margin."""
    asked = f"asked ≥ -{margin:.1%}"
    if paired is None or paired.difference is None or paired.low is None or paired.high is None:
        return RuleResult(rule="teacher", outcome="unknown", reason=f"no row that both were judged on, {asked}")
    outcome: Outcome = "pass" if paired.low > -margin else "fail" if paired.high <= -margin else "unknown"
    seen = f"{paired.difference:+.0%} ({paired.low:+.0%} to {paired.high:+.0%}) against the teacher"
    return RuleResult(rule="teacher", outcome=outcome, reason=f"{seen}, {asked}")


def probes(results: Mapping[str, ProbeResult], margin: float, confidence: float) -> list[RuleResult]:
    """A veto: failed where a probe fell by more than the margin, and by more than chance would have it.

    Probes are few, so they cannot prove that nothing was lost; what they do not show is passed, with the figures.
    """
    return [
        RuleResult(
            rule=f"probe {kind}",
            outcome="fail" if _lost(one, margin, confidence) else "pass",
            reason=_told(one, margin),
        )
        for kind, one in results.items()
        if one.n
    ]


def _lost(one: ProbeResult, margin: float, confidence: float) -> bool:
    return one.fall > margin and one.p_value is not None and one.p_value < 1 - confidence


def _told(one: ProbeResult, margin: float) -> str:
    chance = f", p {one.p_value:.2g}" if one.p_value is not None and one.losses else ""
    moved = f"lost {one.losses}, won {one.wins}{chance}"
    return f"{one.tuned} of {one.n}, base {one.base}; {moved}; a fall of {margin:.0%} is allowed"
