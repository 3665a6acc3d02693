"""The roles as models: `GET /v1/models`, in the form of the client's API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from journeyman.foreign import plain
from journeyman.serving.errors import error_response

_ANTHROPIC = "anthropic-version"
"""A header that Anthropic's clients send with every request."""


def model_routes(roles: Sequence[str]) -> list[Route]:
    """The routes that list the roles and describe one of them."""
    started = int(time.time())
    since = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def listed(request: Request, role: str) -> dict[str, Any]:
        if _ANTHROPIC in request.headers:
            return {"type": "model", "id": role, "display_name": role, "created_at": since}
        return {"id": role, "object": "model", "created": started, "owned_by": "journeyman"}

    async def models(request: Request) -> Response:
        data = [listed(request, role) for role in roles]
        if _ANTHROPIC in request.headers:
            page = {"has_more": False, "first_id": roles[0], "last_id": roles[-1]}
            return JSONResponse({"data": data, **page})
        return JSONResponse({"object": "list", "data": data})

    async def model(request: Request) -> Response:
        role = request.path_params["role"]
        if role in roles:
            return JSONResponse(listed(request, role))
        message = f"model {plain(role, 80)!r} is not served here"
        return error_response(request.url.path, 404, message, "model", "model_not_found")

    return [Route("/v1/models", models), Route("/v1/models/{role:path}", model)]
