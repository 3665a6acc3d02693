"""The verdict by role: the plan's rules, what each of them found, and the figures of every arm."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST
from journeyman.foreign import named
from journeyman.manifests import (
    ArmSummary,
    DecisionManifest,
    EvaluationManifest,
    PlanManifest,
    RoleDecision,
    RoleSummary,
    Speed,
)
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer

NAME = "verdict"
_STAGES = ("plan", "evaluate", "decide")


def verdict(request: Request) -> Response:
    """The decision with its evidence; before `decide` has run, the evidence alone."""
    context, root = context_of(request), run_of(request).root
    evaluation = context.manifests.result(root, "evaluate", EvaluationManifest)
    rules = context.manifests.result(root, "plan", PlanManifest).rules
    made = context.manifests.of(root, "decide")
    decision = made.result if made and isinstance(made.result, DecisionManifest) else None
    ships = decision.ships if decision else "tuned"
    return answer({
        "verdict": decision and decision.verdict, "ships": named(ships),
        "deployed": [named(role) for role in decision.deployed_roles] if decision else [],
        "rules": {
            "least success": rules.min_success, "greatest mean latency": rules.max_mean_latency_s,
            "greatest memory": rules.max_memory_gb, "margin to the teacher": rules.margin,
            "margin of the regression suite": rules.regression_margin, "confidence": rules.confidence,
            "confidence by role": rules.role_confidence,
        },
        "checks": {named(role): one.model_dump() for role, one in rules.checks.items()},
        "threshold": rules.min_success, "rows": evaluation.rows, "look": evaluation.look,
        "confidence": evaluation.confidence, "role_confidence": evaluation.role_confidence,
        "roles": [
            role_figures(role, found, decision.roles.get(role) if decision else None, ships)
            for role, found in evaluation.roles.items()
        ],
        "notes": [one.sentence() for one in decision.notes] if decision else [],
        "others": _others(decision),
        "regressions": [
            {"adapter": named(adapter), "part": part, "n": one.n, "base": one.base, "tuned": one.tuned}
            for adapter, parts in evaluation.regressions.items()
            for part, one in parts.items()
            if one.n
        ],
    })  # fmt: skip


def _others(decision: DecisionManifest | None) -> dict[str, dict[str, str]]:
    """Arm of another file → role → verdict."""
    others = decision.others if decision else {}
    return {named(arm): {named(role): one for role, one in roles.items()} for arm, roles in others.items()}


def role_figures(role: str, found: RoleSummary, decided: RoleDecision | None, ships: str) -> dict[str, Any]:
    """One role: its verdict with reasons, and the figures of each arm."""
    versus = found.versus.get(ships, {})
    return {
        "role": named(role), "rows": found.rows, "groups": found.groups,
        "verdict": decided and decided.verdict, "rows_needed": decided and decided.rows_needed,
        "reasons": [
            {"rule": one.rule, "outcome": one.outcome, "sentence": one.reason.sentence()} for one in decided.reasons
        ]
        if decided
        else [],
        "next_steps": [one.sentence() for one in decided.next_steps] if decided else [],
        "arms": [arm_figures(arm, one) for arm, one in found.arms.items()],
        "versus": [{"arm": named(arm), **one.model_dump()} for arm, one in versus.items()],
    }  # fmt: skip


def arm_figures(arm: str, found: ArmSummary) -> dict[str, Any]:
    """An arm's success with its interval, its speed, and why answers failed."""
    return {
        "arm": named(arm), "success": found.success and found.success.model_dump(), "unscored": found.unscored,
        "alone": _speed(found.speed), "under_load": _speed(found.under_load),
        "failures": [{"n": one.n, "sentence": one.sentence()} for one in found.failures[:10]],
    }  # fmt: skip


def _speed(speed: Speed | None) -> dict[str, Any] | None:
    return None if speed is None else speed.model_dump(exclude={"latencies_s"})


def signature(context: Context, run: RunFolder) -> Hashable:
    return tuple(state_of(run.root / PLACES[stage].folder / MANIFEST) for stage in _STAGES)


ROUTES = (Route("/api/runs/{run}/verdict", verdict),)
