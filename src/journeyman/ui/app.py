"""The page's ASGI application: static files, the resources, and the stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from journeyman.errors import JourneymanError
from journeyman.ui.context import Context
from journeyman.ui.errors import NotThere
from journeyman.ui.events import Hub
from journeyman.ui.guard import Guard
from journeyman.ui.requests import answer, refusal
from journeyman.ui.resources import routes, signatures
from journeyman.ui.static_files import read_static, static


def make_app(context: Context, hosts: Collection[str], token: str) -> tuple[Guard, Hub]:
    """The application behind its guard, and its events, which the caller closes before the server ends.

    Args:
        hosts, token: see Guard.
    """
    hub = Hub(partial(signatures, context))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(hub.watch())
        yield
        watching.cancel()
        hub.close()

    async def events(request: Request) -> Response:
        return StreamingResponse(hub.stream(), media_type="text/event-stream")

    handlers: Any = {JourneymanError: _refused, HTTPException: _no_route, OSError: _unreadable, Exception: _failed}
    app = Starlette(
        routes=[*routes(), Route("/api/events", events), Route("/{path:path}", static)],
        lifespan=lifespan,
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    app.state.context, app.state.static = context, read_static()
    return Guard(app, hosts, token), hub


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, JourneymanError)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    return refusal(NotThere("there is nothing at this path"))


async def _unreadable(request: Request, error: Exception) -> Response:
    return _error("disk", f"a file cannot be read: {error}", 500)


async def _failed(request: Request, error: Exception) -> Response:
    return _error("internal_error", f"the server failed ({type(error).__name__}); see its terminal", 500)


def _error(code: str, what: str, status: int) -> Response:
    return answer({"error": {"code": code, "what": what, "remedy": "", "exit_code": 1, "details": []}}, status)
