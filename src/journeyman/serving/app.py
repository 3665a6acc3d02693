"""An OpenAI-compatible server for one bundle: the role is the model's name.

It stands in front of the engine: known fields pass, everything else is dropped, and the system prompt is
always the one that the role was trained and evaluated with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from journeyman.inference.llama import ONE_SHOT, LlamaEngine
from journeyman.manifests import BundleManifest
from journeyman.records import Message
from journeyman.redaction.redactor import Conversation, Redactor
from journeyman.serving.answering import Answering
from journeyman.serving.engine import KeptEngine, kept_engine
from journeyman.serving.redacting import without_secrets, without_secrets_elsewhere
from journeyman.serving.stream import error_object

MAX_BODY_BYTES = 4 << 20
_SMALL_BYTES, _LARGE_AT_A_TIME = 32 << 10, 2
PASSED_FIELDS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "stream", "stream_options",
    "response_format", "tools", "tool_choice", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty",
)  # fmt: skip


class RequestError(Exception):
    """A request that cannot be served; becomes an OpenAI-style error object."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


def conversation_of(bundle: BundleManifest) -> Conversation:
    """A fresh set of placeholders, for what the training data had replaced."""
    return Redactor(bundle.redact.get("secrets", False), bundle.redact.get("personal", False)).conversation()


def served_messages(
    bundle: BundleManifest, role: str, messages: Sequence[dict[str, Any]], seen: Conversation
) -> list[dict[str, Any]]:
    """The conversation as it goes to the engine: the role's trained system prompt, then the other turns redacted."""
    turns = without_secrets([message for message in messages if message.get("role") != "system"], seen)
    prompt = bundle.system_prompts.get(role)
    return turns if prompt is None else [Message(role="system", content=prompt).as_chat(), *turns]


def engine_request(bundle: BundleManifest, body: Any, seen: Conversation) -> dict[str, Any]:
    """Turns a client's request into the engine's; `seen` gathers what was replaced in it.

    Raises:
        RequestError: not an object, an unknown role, or no messages.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    role, messages = body.get("model"), body.get("messages")
    if role not in bundle.roles:
        raise RequestError(404, f"model {role!r} is not served here; the roles served are: {', '.join(bundle.roles)}")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise RequestError(400, "messages must be a list of objects with role and content")
    request = {name: body[name] for name in PASSED_FIELDS if name in body}
    request.setdefault("temperature", bundle.settings["temperature"])
    if "max_completion_tokens" not in request:
        request.setdefault("max_tokens", bundle.settings["max_new_tokens"])
    served = served_messages(bundle, role, messages, seen)
    return {**without_secrets_elsewhere(request, seen), "messages": served}


def make_app(
    bundle: BundleManifest,
    engine: LlamaEngine,
    say: Callable[[str], None] = lambda text: None,
    given_up: Callable[[], None] = lambda: None,
) -> Starlette:
    """The ASGI application; the engine is started and stopped by the caller, and started again here if it ends.

    Args:
        say: hears of an engine that ended, and that another answers.
        given_up: called when starting it again has failed too often.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False, limits=ONE_SHOT) as client,
            kept_engine(engine, say, given_up) as kept,
        ):
            app.state.kept, app.state.answering = kept, Answering(kept, client)
            app.state.large_requests = asyncio.Semaphore(_LARGE_AT_A_TIME)
            yield

    async def models(request: Request) -> Response:
        listed = [{"id": role, "object": "model", "owned_by": "journeyman"} for role in bundle.roles]
        return JSONResponse({"object": "list", "data": listed})

    async def health(request: Request) -> Response:
        kept: KeptEngine = request.app.state.kept
        if kept.ready() is None:
            return JSONResponse({"status": "unavailable", **error_object(kept.why_not())}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def chat(request: Request) -> Response:
        try:
            body, size = await _read_json(request)
            seen = conversation_of(bundle)
            if size <= _SMALL_BYTES:
                asked = engine_request(bundle, body, seen)
            else:  # so that the others' answers flow on; two at a time, since they share this process
                async with request.app.state.large_requests:
                    asked = await asyncio.to_thread(engine_request, bundle, body, seen)
        except RequestError as error:
            return _error(error.status, error.message)
        answering: Answering = request.app.state.answering
        return await answering.answer(request, asked, body["model"], seen)

    routes = [
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _read_json(request: Request) -> tuple[Any, int]:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestError(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
        chunks.append(chunk)
    try:
        return json.loads(b"".join(chunks)), size
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status_code=status)
