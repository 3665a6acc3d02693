"""What `journeyman monitor` says of a run: looked at on request, because it reads rows and compares prompts."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.api.monitoring import Monitor
from journeyman.errors import ChangedArtifact
from journeyman.foreign import named
from journeyman.monitoring.report import Answers, Report, RoleReport, Saved
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import BadRequest
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, body_of
from journeyman.ui.traffic.places import refuse_links
from journeyman.ui.traffic.state import KnownTraffic

NAME = "monitor"
_MOST_HOURS = 24 * 366
_LOOKING = threading.Lock()


def last(request: Request) -> Response:
    """The last look since the page's server was started; null if there was none."""
    return answer({"look": context_of(request).traffic.looks.get(run_of(request).root)})


async def look(request: Request) -> Response:
    """Looks now, at the last `hours`; 0: as many as monitor.hours says. One run at a time."""
    body = await body_of(request, hours=int)
    if not 0 <= body["hours"] <= _MOST_HOURS:
        raise BadRequest(f"hours: not from 0 to {_MOST_HOURS}")
    context, run = context_of(request), run_of(request)
    made = await anyio.to_thread.run_sync(_look, context.traffic, run.root, body["hours"])
    return answer({"look": made})


def _look(known: KnownTraffic, root: Path, hours: int) -> dict[str, Any]:
    places = known.places(root)
    if places.problem:
        raise ChangedArtifact(places.problem, "Use: journeyman monitor")
    for folder in (places.recorded, places.routing):
        refuse_links(root, folder)
    with _LOOKING:
        began = time.monotonic()
        monitor = Monitor(root, hours or None)
        # Without a port, the recorder is not asked how it is: a folder from elsewhere may name any machine.
        record = monitor.config.record.model_copy(update={"port": 0})
        monitor.config = monitor.config.model_copy(update={"record": record})
        made = {**_shown(monitor.look()), "took_s": time.monotonic() - began}
        known.looks[root] = made
        return made


def _shown(report: Report) -> dict[str, Any]:
    return {
        "at": report.at, "since": report.since, "source": report.source, "read": report.read,
        "complete": report.complete, "reaches": report.reaches, "roles": [_role(one) for one in report.roles],
        "notes": [one.sentence() for one in report.notes],
    }  # fmt: skip


def _role(one: RoleReport) -> dict[str, Any]:
    drift = one.drift
    return {
        "role": named(one.role), "requests": one.requests, "by_student": one.by_student,
        "answers": {who: _answers(getattr(one, who)) for who in ("teacher", "student", "shadow")},
        "success_unknown": one.success_unknown and one.success_unknown.sentence(),
        "fallbacks": one.fallbacks and one.fallbacks.model_dump(),
        "saved": _saved(one.saved), "saved_unknown": one.saved_unknown and one.saved_unknown.sentence(),
        "drift": None if drift is None else drift.found,
        "drift_tests": [] if drift is None else [{**test.model_dump(), "p": test.p_value} for test in drift.tests],
        "drift_unknown": drift.unknown.sentence() if drift is not None and drift.unknown is not None else None,
        "prompts": one.prompts and one.prompts.share.model_dump(), "failed_rows": one.failed_rows,
        "train_again": [reason.sentence() for reason in one.train_again],
    }  # fmt: skip


def _answers(one: Answers) -> dict[str, Any]:
    return {"requests": one.requests, "success": one.success and one.success.model_dump(), "errors": one.errors}


def _saved(one: Saved | None) -> dict[str, Any] | None:
    return None if one is None else {**one.model_dump(), "model": named(one.model)}


def signature(context: Context, run: RunFolder) -> Hashable:
    look = context.traffic.looks.get(run.root, {})
    return str(look.get("at", ""))


ROUTES = (
    Route("/api/runs/{run}/monitor", last),
    Route("/api/runs/{run}/monitor/look", look, methods=["POST"]),
)
