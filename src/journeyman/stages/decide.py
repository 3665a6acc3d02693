"""decide: evaluation and the plan's rules → a verdict for each role and for all together.

deploy        every rule passes, and the whole success interval is above the threshold
iterate       a rule fails, but tuning improved on the base or on the teacher's latency
abort         a rule fails and nothing improved
insufficient  no rule fails, but there are too few rows to tell, or none
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.config import TrainConfig
from journeyman.deciding import rules as rule
from journeyman.deciding.advice import Case, next_steps
from journeyman.foreign import markdown, named
from journeyman.manifests import (
    AdapterManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    LogGroup,
    PlanManifest,
    RegressionResult,
    RoleDecision,
    RuleResult,
    Rules,
    VerdictName,
)
from journeyman.reasons import Reason, ReasonRecord
from journeyman.reasons.deciding import (
    JudgeAgrees,
    LookedBefore,
    ServerPromptsUnknown,
    ServerWeightsUnknown,
    Unprotected,
)
from journeyman.records import BASE, EVERY_ROLE, TEACHER
from journeyman.scoring.regressions import compared
from journeyman.stats.rates import rows_needed


def decide(
    plan: PlanManifest,
    dataset: DatasetManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    recipe: TrainConfig,
    teacher: Mapping[str, LogGroup],
    out: Path,
) -> DecisionManifest:
    """Applies the plan's rules to every file that may ship, and chooses the one that does.

    Args:
        recipe: how the adapter was trained, for advice.
        teacher: role → the logs' statistics of the model to be replaced; "all" pools them.
    """

    def of_file(arm: str) -> dict[str, RoleDecision]:
        return {
            role: decide_role(
                Case(role, arm, summary, plan.rules, recipe, adapter.of(role), _train_rows(dataset, role)),
                evaluation.files[arm].peak_memory_gb,
                evaluation.role_confidence,
                _regressions(evaluation, role, arm),
                teacher.get(role),
                on_server=evaluation.files[arm].server is not None,
            )
            for role, summary in evaluation.roles.items()
        }

    by_file = {arm: of_file(arm) for arm in evaluation.files}
    beside = [arm for arm, file in evaluation.files.items() if file.merged is None]  # merged files are targets
    ships = max(beside, key=lambda arm: (len(_deployed(by_file[arm])), -evaluation.files[arm].size_gb))
    decision = DecisionManifest(
        verdict=by_file[ships][EVERY_ROLE].verdict,
        roles=by_file[ships],
        deployed_roles=_deployed(by_file[ships]),
        ships=ships,
        others={
            arm: {role: made.verdict for role, made in roles.items()} for arm, roles in by_file.items() if arm != ships
        },
        notes=_notes(evaluation),
    )
    write_atomic(out / "decision.md", decision_text(decision, evaluation).encode())
    return decision


def _deployed(roles: Mapping[str, RoleDecision]) -> list[str]:
    return [role for role, made in roles.items() if role != EVERY_ROLE and made.verdict == "deploy"]


def _train_rows(dataset: DatasetManifest, role: str) -> int:
    return sum(split.train for name, split in dataset.splits.items() if role in (EVERY_ROLE, name))


def _regressions(evaluation: EvaluationManifest, role: str, arm: str) -> dict[str, RegressionResult]:
    """The regressions of the role's adapter. If all roles share one, the other roles' rows count as well."""
    name = role if role in evaluation.regressions else EVERY_ROLE
    found = dict(evaluation.regressions.get(name, {}))
    if role != EVERY_ROLE and role not in evaluation.adapter_sha256:
        others = [one.versus[arm][BASE] for other, one in evaluation.roles.items() if other not in (EVERY_ROLE, role)]
        pairs = {
            (False, True): sum(one.wins for one in others),
            (True, False): sum(one.losses for one in others),
            (True, True): sum(one.both for one in others),
            (False, False): sum(one.ties - one.both for one in others),
        }
        found["other roles"] = compared([pair for pair, count in pairs.items() for _ in range(count)])
    return found


def decide_role(
    case: Case,
    peak_memory_gb: float | None,
    confidence: float,
    regressions: Mapping[str, RegressionResult],
    teacher: LogGroup | None,
    *,
    on_server: bool = False,
) -> RoleDecision:
    """The verdict on one role and file, with a reason for every rule.

    Args:
        confidence: of the intervals of this look.
        on_server: its memory is not known here, and not a rule.
    """
    rules, tuned = case.rules, case.tuned
    success = rule.success(tuned, rules.min_success)
    results = [
        success,
        rule.latency(tuned, rules.max_mean_latency_s),
        *([] if on_server else [rule.memory(peak_memory_gb, rules.max_memory_gb)]),
        *rule.regressions(regressions, rules.regression_margin, rules.confidence),
    ]
    if rules.margin is not None:
        results.append(rule.not_inferior(case.summary.versus[case.arm].get(TEACHER), rules.margin))
    verdict = _verdict(case, results, teacher)
    observed = tuned.success.passed / tuned.success.n if tuned.success else 1.0
    needed = None if success.outcome != "unknown" else rows_needed(observed, rules.min_success, confidence)
    return RoleDecision(
        verdict=verdict,
        stretch=verdict == "deploy" and _stretch(case, rules),
        reasons=results,
        rows_needed=needed,
        next_steps=[step.record() for step in next_steps(replace(case, results=results), verdict, needed)],
    )


def _verdict(case: Case, results: list[RuleResult], teacher: LogGroup | None) -> VerdictName:
    outcomes = {result.outcome for result in results}
    if outcomes == {"pass"}:
        return "deploy"
    if (
        "fail" in outcomes and case.summary.rows
    ):  # nothing is known about a role without rows, so there is nothing to abort
        return "iterate" if _improved(case, teacher) else "abort"
    return "insufficient"


def _improved(case: Case, teacher: LogGroup | None) -> bool:
    """Whether it wins more rows against the base than it loses, or is faster than the logged teacher."""
    base = case.summary.versus[case.arm][BASE]
    if base.wins > base.losses:
        return True
    teacher_s = teacher.durations.mean_s if teacher else None
    speed = case.tuned.speed
    return teacher_s is not None and speed is not None and speed.mean_s < teacher_s


def _stretch(case: Case, rules: Rules) -> bool:
    rate, speed = case.tuned.success, case.tuned.speed
    return (
        rate is not None
        and speed is not None
        and rate.low >= rules.stretch_success
        and speed.mean_s < rules.stretch_mean_latency_s
    )


def _notes(evaluation: EvaluationManifest) -> list[ReasonRecord]:
    notes: list[Reason] = []
    if evaluation.look > 1:
        notes.append(LookedBefore(evaluation.look, evaluation.role_confidence))
    for one in evaluation.judge:
        if one.n:
            notes.append(JudgeAgrees(one.role, one.agree, one.n, one.low, one.high, one.too_kind, one.too_strict))
    for file in evaluation.files.values():
        if file.server is not None:
            notes += [ServerPromptsUnknown(file.server.url)] if file.identical_prompts is None else []
            notes += [ServerWeightsUnknown(file.server.url)] if file.server.weights is None else []
    if evaluation.sandbox is not None and evaluation.sandbox.kind == "none":
        notes.append(Unprotected())
    return [note.record() for note in notes]


def decision_text(decision: DecisionManifest, evaluation: EvaluationManifest) -> str:
    """The decision as a page of Markdown."""
    file = evaluation.files[decision.ships]
    lines = ["# Decision", "", f"**{decision.verdict}** over all roles, on {markdown(file.shown)}.", ""]
    lines += [f"- {markdown(note.sentence())}" for note in decision.notes] + [""] * bool(decision.notes)
    for arm, roles in decision.others.items():
        verdicts = ", ".join(f"{markdown(named(role))} {verdict}" for role, verdict in roles.items())
        lines += [f"On {markdown(evaluation.files[arm].shown)}: {verdicts}.", ""]
    for role, made in decision.roles.items():
        lines.append(f"## {markdown(named(role))}: {made.verdict}{' (stretch goals met)' if made.stretch else ''}")
        lines += ["", *[f"- {markdown(r.rule)}: {r.outcome}: {markdown(r.reason.sentence())}" for r in made.reasons]]
        lines += [f"- next: {markdown(step.sentence())}" for step in made.next_steps] + [""]
    return "\n".join(lines)
