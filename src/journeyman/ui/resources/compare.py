"""Several runs side by side: the settings and inputs that differ, and the figures of each."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.foreign import named
from journeyman.manifests import AdapterManifest, DecisionManifest, EvaluationManifest, PlanManifest
from journeyman.renamed import current_inputs
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of
from journeyman.ui.errors import BadRequest
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer
from journeyman.ui.resources.verdict import arm_figures

NAME = "compare"
MOST = 6
_SHOWN = 300
_RESULTS = {place.folder for place in PLACES.values()}
"""Inputs that are the results of earlier stages: they differ if those stages do."""


def compare(request: Request) -> Response:
    """Parameter: `run`, once for each."""
    context = context_of(request)
    ids = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 2 <= len(ids) <= MOST:
        raise BadRequest(f"two to {MOST} runs can be compared, not {len(ids)}")
    runs = [context.runs.of(run_id) for run_id in ids]
    inputs = [_inputs(context, run.root) for run in runs]
    settings, alike = _differing(inputs)
    return answer({
        "runs": [{"id": run.id, "name": run.name} for run in runs],
        "settings": settings, "alike": alike,
        "roles": _roles(context, runs),
        "figures": [_figures(context, run.root) for run in runs],
    })  # fmt: skip


def _inputs(context: Context, root: Path) -> dict[tuple[str, str], str]:
    """(stage, setting or input) → what the stage was made with, as its manifest records it."""
    found: dict[tuple[str, str], str] = {}
    for stage in PLACES:
        made = context.manifests.of(root, stage)
        if made is not None:
            inputs = current_inputs(made.stamp.inputs)
            found |= {(stage, name): value for name, value in inputs.items() if name not in _RESULTS}
    return found


def _differing(inputs: list[dict[tuple[str, str], str]]) -> tuple[list[dict[str, Any]], int]:
    """The settings whose values differ, with the stages that have them so, and how many are alike everywhere."""
    found: dict[tuple[str, tuple[str | None, ...]], list[str]] = {}
    order = list(PLACES)
    for stage, name in sorted({key for one in inputs for key in one}, key=lambda key: (key[1], order.index(key[0]))):
        values = tuple(one.get((stage, name)) for one in inputs)
        found.setdefault((name, values), []).append(stage)
    differing = [
        {"name": name, "values": list(map(_short, values)), "stages": stages}
        for (name, values), stages in found.items()
        if len(set(values)) > 1
    ]
    return differing, len(found) - len(differing)


def _short(value: str | None) -> str | None:
    if value is None or len(value) <= _SHOWN:
        return value
    return f"{value[:_SHOWN]}… ({hashlib.sha256(value.encode()).hexdigest()[:8]})"


def _roles(context: Context, runs: list[RunFolder]) -> list[dict[str, Any]]:
    """Role → arm → the figures of each run; None where it has none."""
    found: dict[str, dict[str, list[Any]]] = {}
    verdicts: dict[str, list[str | None]] = {}
    for place, run in enumerate(runs):
        evaluated, decided = (context.manifests.of(run.root, stage) for stage in ("evaluate", "decide"))
        if evaluated and isinstance(evaluated.result, EvaluationManifest):
            for role, summary in evaluated.result.roles.items():
                for arm, one in summary.arms.items():
                    found.setdefault(role, {}).setdefault(arm, [None] * len(runs))[place] = arm_figures(arm, one)
        if decided and isinstance(decided.result, DecisionManifest):
            for role, one_role in decided.result.roles.items():
                verdicts.setdefault(role, [None] * len(runs))[place] = one_role.verdict
    return [
        {
            "role": named(role), "verdicts": verdicts.get(role, [None] * len(runs)),
            "arms": [{"arm": named(arm), "runs": figures} for arm, figures in arms.items()],
        }
        for role, arms in found.items()
    ]  # fmt: skip


def _figures(context: Context, root: Path) -> dict[str, Any]:
    """A run's figures that belong to no role; None: not known."""
    plan, trained, evaluated, decided = (
        made and made.result
        for made in (context.manifests.of(root, one) for one in ("plan", "train", "evaluate", "decide"))
    )
    adapter = trained if isinstance(trained, AdapterManifest) else None
    losses = [one.best_loss for one in adapter.adapters.values() if one.best_loss is not None] if adapter else []
    shipped = None
    if isinstance(evaluated, EvaluationManifest) and isinstance(decided, DecisionManifest):
        shipped = evaluated.files.get(decided.ships)
    return {
        "verdict": decided.verdict if isinstance(decided, DecisionManifest) else None,
        "base": Path(plan.base_path).name if isinstance(plan, PlanManifest) else None,
        "steps": sum(one.steps for one in adapter.adapters.values()) if adapter else None,
        "training_s": adapter and adapter.train_s,
        "best_validation_loss": min(losses, default=None),
        "training_gb": adapter and adapter.peak_memory_gb,
        "serving_gb": shipped and shipped.peak_memory_gb,
        "file_gb": shipped and shipped.size_gb,
    }


def signature(context: Context, run: RunFolder) -> Hashable:
    return None  # it shows what `state` tells of


ROUTES = (Route("/api/compare", compare),)
