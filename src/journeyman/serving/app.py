"""An OpenAI-compatible server for one bundle: the role is the model's name.

It stands in front of the engine: known fields pass, everything else is dropped, and the system prompt is
always the one that the role was trained and evaluated with.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from journeyman.inference.llama import ONE_SHOT, LlamaEngine
from journeyman.manifests import BundleManifest, RolePrompt
from journeyman.records import Message
from journeyman.redaction.redactor import Conversation, Redactor
from journeyman.serving.redacting import restored_stream, without_secrets

MAX_BODY_BYTES = 4 << 20
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
    """The conversation as it goes to the engine: under the role's trained system prompt, redacted as in training.

    Where the role was trained with prompts of its rows' own, the client's prompt is kept.

    Raises:
        RequestError: the role's prompts have a frame, and the client's does not fit it.
    """
    contract = bundle.prompts.get(role)
    places = [place for place, turn in enumerate(messages) if turn.get("role") not in ("system", "developer")]
    lead = places[0] if places else len(messages)
    if contract is not None and contract.kind != "fixed":
        given = "\n\n".join(_text_of(turn) for turn in messages[:lead])
        if not contract.fits(given):
            raise RequestError(400, _unfit(role, contract))
        return without_secrets(messages, seen)
    turns = without_secrets(messages[lead:], seen)
    prompt = bundle.system_prompts.get(role)
    return turns if prompt is None else [Message(role="system", content=prompt).as_chat(), *turns]


def _text_of(turn: dict[str, Any]) -> str:
    content = turn.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _unfit(role: str, contract: RolePrompt) -> str:
    return (
        f"messages: {role!r} was trained under system prompts that begin with {contract.begins[:80]!r} and end with "
        f"{contract.ends[-80:]!r}; send one of that form"
    )


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
    return {**request, "messages": served_messages(bundle, role, messages, seen)}


def make_app(bundle: BundleManifest, engine: LlamaEngine) -> Starlette:
    """The ASGI application; the engine is started and stopped by the caller."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            base_url=engine.address, headers=engine.headers, timeout=None, trust_env=False, limits=ONE_SHOT
        ) as client:
            app.state.client = client
            yield

    async def models(request: Request) -> Response:
        listed = [{"id": role, "object": "model", "owned_by": "journeyman"} for role in bundle.roles]
        return JSONResponse({"object": "list", "data": listed})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def chat(request: Request) -> Response:
        try:
            body = await _read_json(request)
            seen = conversation_of(bundle)
            asked = {
                **engine_request(bundle, body, seen),
                "lora": engine.settings.lora(engine.settings.adapter_of(body["model"])),
            }
        except RequestError as error:
            return _error(error.status, error.message)
        try:
            upstream = await _ask(request.app.state.client, asked)
        except httpx.HTTPError as error:
            return _error(502, f"the engine does not answer: {error}")
        if not asked.get("stream") or upstream.status_code != 200:
            content = await upstream.aread()
            await upstream.aclose()
            return _answer(upstream.status_code, content, body["model"], seen)
        pieces = restored_stream(upstream.aiter_lines(), seen) if seen.counts else upstream.aiter_raw()
        return StreamingResponse(pieces, media_type="text/event-stream", background=BackgroundTask(upstream.aclose))

    routes = [
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _answer(status: int, content: bytes, role: str, seen: Conversation) -> Response:
    try:
        answer = json.loads(content)
    except ValueError:
        return _error(502, "the engine answered something that is not JSON")
    if status == 200:
        answer["model"] = role
        for choice in answer.get("choices", []):
            choice["message"] = seen.restore_value(choice.get("message"))
    return JSONResponse(answer, status_code=status)


async def _ask(client: httpx.AsyncClient, asked: dict[str, Any]) -> httpx.Response:
    """The engine's response. A connection that it drops before it has read the request is made again, once."""
    for last in (False, True):
        try:
            made = client.build_request("POST", "/v1/chat/completions", json=asked)
            return await client.send(made, stream=bool(asked.get("stream")))
        except httpx.RemoteProtocolError:
            if last:
                raise
    raise AssertionError("the last try returns or raises")


async def _read_json(request: Request) -> Any:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestError(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
        chunks.append(chunk)
    try:
        return json.loads(b"".join(chunks))
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status_code=status)
