"""The list of runs, one run's state, the comparison of its stages, and its stop."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import ChangedMeanwhile, JourneymanError
from journeyman.foreign import named
from journeyman.locking import LOCK, is_at_work, worker_in
from journeyman.manifests import DecisionManifest, PlanManifest
from journeyman.runs import PLACES
from journeyman.supervision.background import Look, ask_to_stop
from journeyman.supervision.heartbeat import PROGRESS, read_progress
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, body_of
from journeyman.ui.states import now_of, seen_in, stages_of

NAME = "state"


def list_runs(request: Request) -> Response:
    """All runs, in short."""
    context = context_of(request)
    found = [_summary_or_problem(context, run) for run in context.runs.listed()]
    return answer({"folder": str(context.runs.folder), "cut": context.runs.cut, "runs": found})


def one_run(request: Request) -> Response:
    """One run."""
    return answer(summary(context_of(request), run_of(request)))


def _summary_or_problem(context: Context, run: RunFolder) -> dict[str, Any]:
    """The summary; of a folder that cannot be read, only the reason, so that the other runs are shown."""
    try:
        return summary(context, run)
    except (JourneymanError, OSError) as error:
        return {
            "id": run.id, "name": run.name, "path": str(run.root), "stages": [], "now": now_of(Look("nothing", None)),
            "base": None, "problems": [str(error)], "when": "", "verdict": None, "roles": {}, "compared": None,
        }  # fmt: skip


def summary(context: Context, run: RunFolder) -> dict[str, Any]:
    """A run's state, verdict and base. What cannot be read is named in `problems`."""
    problems = []
    try:
        seen = seen_in(run.root)
    except JourneymanError as error:
        seen = Look("nothing", None)
        problems.append(str(error))
    stages = stages_of(run.root, context.manifests, seen)
    compared = context.compared.of(run.root)
    for stage in stages:
        if compared is not None and stage["state"] in ("made", "stale"):
            stage |= compared["stages"].get(stage["stage"], {})
        if stage["error"]:
            problems.append(stage["error"])
    decision = _result(context, run.root, "decide")
    base, config_problem = _base(context, run.root)
    return {
        "id": run.id, "name": run.name, "path": str(run.root), "stages": stages, "now": now_of(seen),
        "base": base, "problems": [*problems, *config_problem],
        "when": max((stage["made"] for stage in stages), default=""),
        "verdict": decision.verdict if isinstance(decision, DecisionManifest) else None,
        "roles": {named(role): one.verdict for role, one in decision.roles.items()}
        if isinstance(decision, DecisionManifest)
        else {},
        "compared": compared and {"at": compared["at"], "error": compared["error"]},
    }  # fmt: skip


def _result(context: Context, root: Path, stage: str) -> Any:
    try:
        made = context.manifests.of(root, stage)
    except JourneymanError:  # it is among the stages' errors
        return None
    return made and made.result


def _base(context: Context, root: Path) -> tuple[str | None, list[str]]:
    """The base's name, of the plan or else of the config, and why the config cannot be read."""
    plan = _result(context, root, "plan")
    base = Path(plan.base_path).name if isinstance(plan, PlanManifest) else None
    state = state_of(root / CONFIG_NAME)
    if state is None:
        return base, []
    model, problem = context.bases.get(root, state, lambda: _configured_base(root))
    return base or model, [problem] if problem else []


def _configured_base(root: Path) -> tuple[str | None, str]:
    """base.model of the config, and why it cannot be read."""
    try:
        return load_config(root / CONFIG_NAME).base.model, ""
    except JourneymanError as error:
        return None, str(error)


async def compare_stages(request: Request) -> Response:
    """Compares the stages with settings, logs and base now."""
    await body_of(request)
    context, run = context_of(request), run_of(request)
    await anyio.to_thread.run_sync(context.compared.compare, run.root)
    return answer(await anyio.to_thread.run_sync(summary, context, run))


async def stop(request: Request) -> Response:
    """Asks the process that the user saw to save its state and exit; does not wait for it."""
    body = await body_of(request, pid=int)
    run = run_of(request)
    worker = worker_in(run.root)
    if worker is not None and worker[1] != body["pid"]:
        raise ChangedMeanwhile(
            f"another process ({worker[1]}) works in this folder now", "Look again before you stop it"
        )
    return answer({"pid": ask_to_stop(run.root)})


def signature(context: Context, run: RunFolder) -> Hashable:
    """The files with the state. The lock is tried only where a process is said to work, so that nobody is kept out."""
    progress = state_of(run.root / PROGRESS)
    said = read_progress(run.root) if progress is not None else None
    working = said is not None and said.state == "running" and _at_work(run.root)
    made = tuple(
        (state_of(run.root / place.folder / MANIFEST), (run.root / place.folder).is_dir()) for place in PLACES.values()
    )
    compared = context.compared.of(run.root)
    return (
        progress,
        working,
        state_of(run.root / LOCK),
        state_of(run.root / CONFIG_NAME),
        made,
        compared and compared["at"],
    )


def _at_work(root: Path) -> bool | str:
    """Whether a process works in the folder, or why this is not known."""
    try:
        return is_at_work(root)
    except JourneymanError as error:
        return str(error)


ROUTES = (
    Route("/api/runs", list_runs),
    Route("/api/runs/{run}", one_run),
    Route("/api/runs/{run}/compare-stages", compare_stages, methods=["POST"]),
    Route("/api/runs/{run}/stop", stop, methods=["POST"]),
)
