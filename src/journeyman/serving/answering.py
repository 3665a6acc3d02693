"""Sends validated requests to the engine and returns its answers, whole or streamed.

If a client disconnects, its request is cancelled: the connection to the engine is closed, and the engine, which watches
for that, stops working on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from journeyman.http_client import Retry, with_retries_async
from journeyman.protocols import ServedEngine
from journeyman.redaction.redactor import Conversation
from journeyman.serving.answers import named
from journeyman.serving.engine import KeptEngine
from journeyman.serving.errors import error_response
from journeyman.serving.redacting import asks_for_json, restored_answer
from journeyman.serving.stream import error_object, served_stream

_PATH = "/v1/chat/completions"
_CLIENT_LEFT = 499
_AGAIN_S = "2"
_UNREAD = Retry(tries=2, first_wait_s=0.05, statuses=frozenset(), errors=(httpx.RemoteProtocolError,))
"""A single retry, and only if the connection was closed without an answer: the request may have crashed the engine."""


@dataclass(frozen=True)
class Answering:
    """Sends requests to the currently running engine."""

    kept: KeptEngine
    client: httpx.AsyncClient

    async def answer(
        self, request: Request, asked: dict[str, Any], role: str, seen: Conversation, headers: Mapping[str, str]
    ) -> Response:
        """The response to `asked`, the engine's form of a request for a role, with the values of `seen` restored."""
        engine = self.kept.ready()
        if engine is None:
            return self._no_answer(503)
        kept = self.kept
        asked = {**asked, "lora": kept.settings.lora(kept.settings.adapter_of(role))}
        try:
            upstream = await while_connected(request, self._ask(engine, asked))
        except httpx.HTTPError:
            return self._no_answer(502)
        if upstream is None:
            return Response(status_code=_CLIENT_LEFT)
        in_json = asks_for_json(asked)
        if asked.get("stream") and upstream.status_code == 200:
            pieces = served_stream(upstream, role, seen, in_json=in_json, why=kept.why_not)
            return StreamedAnswer(upstream, pieces, headers)
        await upstream.aread()  # a refused stream arrives as a whole answer
        await upstream.aclose()
        return _whole(upstream, role, seen, in_json, headers)

    def _no_answer(self, status: int) -> Response:
        return JSONResponse(error_object(self.kept.why_not()), status_code=status, headers={"retry-after": _AGAIN_S})

    async def _ask(self, engine: ServedEngine, asked: dict[str, Any]) -> httpx.Response:
        """The engine's response. A connection that it drops before reading the request is retried once."""
        made = self.client.build_request("POST", engine.address + _PATH, headers=engine.headers, json=asked)
        streamed = bool(asked.get("stream"))
        return await with_retries_async(
            lambda: self.client.send(made, stream=streamed), _UNREAD, again=lambda: engine.alive
        )


def _whole(
    upstream: httpx.Response, role: str, seen: Conversation, in_json: bool, headers: Mapping[str, str]
) -> Response:
    try:
        answer = json.loads(upstream.content)
    except ValueError:
        return error_response(502, "the engine's answer is not JSON")
    if upstream.status_code != 200:
        return _engine_error(upstream.status_code, answer)
    answer = named(answer, role)
    for choice in answer.get("choices", []):
        choice["message"] = restored_answer(choice.get("message"), seen, in_json=in_json)
    return JSONResponse(answer, headers=dict(headers))


def _engine_error(status: int, answer: Any) -> Response:
    """The engine's error without its paths. Its failures become 502; its refusals keep their status."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    code = "context_length_exceeded" if kind == "exceed_context_size_error" else None
    return error_response(status if status < 500 else 502, str(message or "the engine refused"), code=code)


class StreamedAnswer(StreamingResponse):
    """A stream that closes the engine's connection however it ends: complete, abandoned by the client, or cut off."""

    def __init__(self, upstream: httpx.Response, content: Any, headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers=dict(headers))
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._upstream.aclose()


async def while_connected(request: Request, work: Coroutine[Any, Any, httpx.Response]) -> httpx.Response | None:
    """The result of `work`; if the client disconnects first, cancels it and returns None. Read the body before."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
