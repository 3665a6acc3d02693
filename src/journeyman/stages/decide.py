"""decide: the evaluation against the rules that the plan fixed → a verdict for each role and for all.

deploy        every rule is passed, and the success interval lies wholly above the threshold
iterate       a rule is failed, but tuning improved on the base or on the teacher's latency
abort         a rule is failed and nothing improved
insufficient  no rule is failed, but the rows cannot tell
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from journeyman.artifacts import write_atomic
from journeyman.manifests import (
    AdapterManifest,
    ArmSummary,
    DecisionManifest,
    EvaluationManifest,
    LogGroup,
    Paired,
    PlanManifest,
    RoleDecision,
    RoleSummary,
    RuleResult,
    Rules,
    TrainedAdapter,
    VerdictName,
)
from journeyman.stats.rates import rows_needed


def decide(
    plan: PlanManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    teacher: dict[str, LogGroup],
    out: Path,
) -> DecisionManifest:
    """Applies the plan's rules.

    Args:
        teacher: role → what the logs say of the model that is to be replaced; "all" pools them.
    """
    roles = {
        role: decide_role(summary, evaluation.peak_memory_gb, plan.rules, adapter.of(role), teacher.get(role))
        for role, summary in evaluation.roles.items()
    }
    decision = DecisionManifest(
        verdict=roles["all"].verdict,
        roles=roles,
        deployed_roles=[role for role, made in roles.items() if role != "all" and made.verdict == "deploy"],
    )
    write_atomic(out / "decision.md", decision_text(decision).encode())
    return decision


def decide_role(
    summary: RoleSummary,
    peak_memory_gb: float | None,
    rules: Rules,
    adapter: TrainedAdapter | None,
    teacher: LogGroup | None,
) -> RoleDecision:
    """The verdict of one role, with a reason for every rule."""
    success = _success(summary, rules.min_success)
    results = [
        success,
        _latency(summary.tuned, rules.max_mean_latency_s),
        _memory(peak_memory_gb, rules.max_memory_gb),
    ]
    if rules.margin is not None:
        results.append(_not_inferior(summary.versus.get("teacher"), rules.margin))
    outcomes = {result.outcome for result in results}
    verdict: VerdictName
    if outcomes == {"pass"}:
        verdict = "deploy"
    elif "fail" in outcomes:
        verdict = "iterate" if _improved(summary, teacher) else "abort"
    else:
        verdict = "insufficient"
    rate = summary.tuned.success
    settled = success.outcome != "unknown"
    observed = rate.passed / rate.n if rate else 1.0
    needed = None if settled else rows_needed(observed, rules.min_success, rules.role_confidence)
    return RoleDecision(
        verdict=verdict,
        stretch=verdict == "deploy" and _stretch(summary, rules),
        reasons=results,
        rows_needed=needed,
        next_steps=_next_steps(verdict, summary, results, adapter, needed),
    )


def _success(summary: RoleSummary, threshold: float) -> RuleResult:
    rate = summary.tuned.success
    if rate is None:
        reason = f"{summary.tuned.unscored} rows unscored" if summary.tuned.unscored else "no test rows"
        return RuleResult(rule="success", outcome="unknown", reason=f"{reason}, asked ≥ {threshold * 100:g}%")
    seen = f"{rate.passed} of {rate.n} ({rate.low:.0%}–{rate.high:.0%}), asked ≥ {threshold * 100:g}%"
    if summary.tuned.unscored:
        # What could not be judged may be failure: it never counts towards a deployment.
        return RuleResult(
            rule="success",
            outcome="fail" if rate.high < threshold else "unknown",
            reason=f"{seen}; {summary.tuned.unscored} rows unscored",
        )
    if rate.low >= threshold:
        return RuleResult(rule="success", outcome="pass", reason=seen)
    return RuleResult(rule="success", outcome="fail" if rate.high < threshold else "unknown", reason=seen)


def _latency(arm: ArmSummary, limit: float) -> RuleResult:
    """Passed where the whole interval of the mean lies below the limit, failed where the mean does not."""
    value, high = arm.mean_latency_s, arm.mean_latency_high_s
    if value is None or high is None:
        return RuleResult(rule="latency", outcome="unknown", reason=f"not measured, limit {limit:g} s mean")
    outcome: Literal["pass", "fail", "unknown"] = "pass" if high < limit else "fail" if value >= limit else "unknown"
    return RuleResult(rule="latency", outcome=outcome, reason=f"{value:.2f} (up to {high:.2f}), limit {limit:g} s mean")


def _memory(value: float | None, limit: float) -> RuleResult:
    if value is None:
        return RuleResult(rule="memory", outcome="unknown", reason=f"not measured, limit {limit:g} GB peak")
    outcome: Literal["pass", "fail"] = "pass" if value <= limit else "fail"
    return RuleResult(rule="memory", outcome=outcome, reason=f"{value:.2f}, limit {limit:g} GB peak")


def _not_inferior(paired: Paired | None, margin: float) -> RuleResult:
    """Passed where the whole interval of tuned less teacher lies above minus the margin."""
    asked = f"asked ≥ -{margin:.1%}"
    if paired is None or paired.difference is None or paired.low is None or paired.high is None:
        return RuleResult(rule="teacher", outcome="unknown", reason=f"no row that both were judged on, {asked}")
    outcome: Literal["pass", "fail", "unknown"] = "unknown"
    if paired.low > -margin:
        outcome = "pass"
    elif paired.high <= -margin:
        outcome = "fail"
    seen = f"{paired.difference:+.0%} ({paired.low:+.0%} to {paired.high:+.0%}) against the teacher"
    return RuleResult(rule="teacher", outcome=outcome, reason=f"{seen}, {asked}")


def _improved(summary: RoleSummary, teacher: LogGroup | None) -> bool:
    """More rows won than lost against the base, or faster than the teacher that the logs show."""
    base = summary.versus["base"]
    if base.wins > base.losses:
        return True
    teacher_s = teacher.durations.mean_s if teacher else None
    tuned_s = summary.tuned.mean_latency_s
    return teacher_s is not None and tuned_s is not None and tuned_s < teacher_s


def _stretch(summary: RoleSummary, rules: Rules) -> bool:
    rate, latency = summary.tuned.success, summary.tuned.mean_latency_s
    return (
        rate is not None
        and latency is not None
        and rate.low >= rules.stretch_success
        and latency < rules.stretch_mean_latency_s
    )


def _next_steps(
    verdict: VerdictName,
    summary: RoleSummary,
    results: Sequence[RuleResult],
    adapter: TrainedAdapter | None,
    needed: int | None,
) -> list[str]:
    if verdict == "insufficient":
        if needed is None:
            return ["more test rows of this role, or checks that can score them"]
        return [f"{needed} test rows of this role would tell, at the rate seen so far; there are {summary.rows}"]
    if verdict == "abort":
        return ["tuning changed nothing for the better: a larger base, or the teacher stays"]
    if verdict == "deploy":
        return []
    failed = {result.rule for result in results if result.outcome == "fail"}
    steps = []
    if "success" in failed and _endless(summary.tuned):
        steps.append(
            "most failures did not end by themselves: train on answers that end (curate.rules.truncated = 'drop', and "
            "a teacher that is not cut), or raise evaluate.max_new_tokens"
        )
    elif "success" in failed:
        validations = adapter.validations if adapter is not None else []
        if adapter is not None and adapter.best_step == adapter.steps and len(validations) > 1:
            steps.append("more epochs: the validation loss was still falling at the last step")
        elif validations:
            steps.append("a lower learning rate or more data: the validation loss rose after its best step")
        steps.append("more training rows of this role, then a higher rank, then a larger base")
    if "latency" in failed:
        steps.append("a smaller or more quantized base, or shorter answers in the training rows")
    if "memory" in failed:
        steps.append("a smaller or more quantized base, or a smaller evaluate.context")
    return steps


def _endless(arm: ArmSummary) -> bool:
    """More than half of the failures ran into the token limit."""
    cut = sum(count for why, count in arm.failures.items() if why.endswith("did not end by itself: length"))
    return cut > sum(arm.failures.values()) / 2


def decision_text(decision: DecisionManifest) -> str:
    """The decision as a page of Markdown."""
    lines = ["# Decision", "", f"**{decision.verdict}** over all roles.", ""]
    for role, made in decision.roles.items():
        lines.append(f"## {role}: {made.verdict}{' (stretch goals met)' if made.stretch else ''}")
        lines += ["", *[f"- {r.rule}: {r.outcome}: {r.reason}" for r in made.reasons]]
        lines += [f"- next: {step}" for step in made.next_steps] + [""]
    return "\n".join(lines)
