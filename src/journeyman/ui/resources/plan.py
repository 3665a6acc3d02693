"""The plan's figures beside those that were measured."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST
from journeyman.foreign import named
from journeyman.manifests import AdapterManifest, DecisionManifest, EvaluationManifest, PlanManifest
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer

NAME = "plan"
_STAGES = ("plan", "train", "evaluate", "decide")


def plan(request: Request) -> Response:
    """What was estimated, what it became, and what the plan warned of."""
    context, root = context_of(request), run_of(request).root
    planned = context.manifests.result(root, "plan", PlanManifest)
    found = {stage: made.result for stage in _STAGES if (made := context.manifests.of(root, stage)) is not None}
    return answer({
        "figures": figures(planned, found.get("train"), found.get("evaluate"), found.get("decide")),
        "facts": {
            "memory mode": planned.memory, "precision": planned.precision,
            "device": planned.device_name or planned.device or "processor",
            "base parameters": planned.base_parameters, "trained parameters": planned.trainable_parameters,
        },
        "steps": planned.total_steps,
        "power": {named(role): chance for role, chance in planned.power.items()}, "power_rate": planned.power_rate,
        "warnings": [one.sentence() for one in planned.warnings],
    })  # fmt: skip


def figures(planned: PlanManifest, trained: Any, evaluated: Any, decided: Any) -> list[dict[str, Any]]:
    """One entry for each figure: name, unit, estimate and measured value; None: not known."""
    adapter = trained if isinstance(trained, AdapterManifest) else None
    steps = sum(one.steps for one in adapter.adapters.values()) if adapter else None
    shipped = None
    if isinstance(evaluated, EvaluationManifest) and isinstance(decided, DecisionManifest):
        shipped = evaluated.files.get(decided.ships)
    memory = planned.countable_train_memory_gb if adapter else planned.estimated_train_memory_gb
    rows = (
        ("steps", "", planned.total_steps, steps),
        ("tokens", "", planned.total_tokens, adapter and adapter.tokens),
        ("training time", "s", planned.estimated_train_s, adapter and adapter.train_s),
        ("training memory", "GB", memory, adapter and adapter.peak_memory_gb),
        ("serving memory", "GB", planned.estimated_serve_memory_gb, shipped and shipped.peak_memory_gb),
    )
    return [{"name": name, "unit": unit, "planned": guess, "measured": real} for name, unit, guess, real in rows]


def signature(context: Context, run: RunFolder) -> Hashable:
    return tuple(state_of(run.root / PLACES[stage].folder / MANIFEST) for stage in _STAGES)


ROUTES = (Route("/api/runs/{run}/plan", plan),)
