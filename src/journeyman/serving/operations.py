"""Routes for those who run the server: `/health`, `/ready` and `/metrics`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from journeyman.serving.answering import Answering
from journeyman.serving.engine import KeptEngine
from journeyman.serving.errors import error_object
from journeyman.serving.metrics import CONTENT_TYPE, Gauge, Metrics


def operation_routes() -> list[Route]:
    """The routes; they read `kept`, `answering`, `metrics` and `bundle` of the application's state."""
    return [Route("/health", _health), Route("/ready", _ready), Route("/metrics", _metrics)]


async def _health(request: Request) -> Response:
    """Whether this process is alive; a restart of it would be no help if only the engine is not."""
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    """Whether requests are answered now, and by which bundle."""
    kept: KeptEngine = request.app.state.kept
    if kept.ready() is None:
        return JSONResponse({"status": "unavailable", **error_object(kept.why_not())}, status_code=503)
    return JSONResponse({"status": "ok", "bundle": request.app.state.bundle})


async def _metrics(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    return PlainTextResponse(metrics.text(_gauges(request.app.state.answering)), media_type=CONTENT_TYPE)


def _gauges(answering: Answering) -> list[Gauge]:
    kept, turns = answering.kept, answering.turns
    return [
        Gauge("journeyman_requests_waiting", "Requests in the queue", turns.waiting),
        Gauge("journeyman_requests_active", "Requests that the engine has", turns.active),
        Gauge("journeyman_engine_up", "Whether the engine is running", int(kept.ready() is not None)),
        Gauge("journeyman_engine_restarts_total", "Engines started after one had ended", kept.restarts, "counter"),
    ]
