"""An OpenAI-compatible server for one bundle: the role is the model's name.

It runs in front of the engine. Validated fields are passed on (serving.requests), requests that the base's chat
template does not support are refused (serving.prompts), and the system prompt is always the one with which the role was
trained and evaluated.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from journeyman.foreign import plain
from journeyman.http_client import async_engine_client
from journeyman.manifests import BundleManifest, RolePrompt
from journeyman.models.base import Base, TemplateChoice
from journeyman.models.opening import open_base
from journeyman.models.templated import TemplatedBase
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.records import Message
from journeyman.redaction.redactor import Conversation, Redactor
from journeyman.serving.answering import Answering
from journeyman.serving.bodies import MAX_BYTES, parsed
from journeyman.serving.engine import KeptEngine, kept_engine
from journeyman.serving.errors import RequestError, error_response
from journeyman.serving.messages import SYSTEM
from journeyman.serving.prompts import PromptCheck
from journeyman.serving.redacting import without_secrets, without_secrets_elsewhere
from journeyman.serving.requests import Asked, read_request
from journeyman.serving.stream import error_object

IGNORED_HEADER = "journeyman-ignored"
_SMALL_BYTES, _LARGE_AT_A_TIME = 32 << 10, 2


def conversation_of(bundle: BundleManifest) -> Conversation:
    """A new set of placeholders for the kinds of values that were redacted in the training data."""
    return Redactor(bundle.redact.get("secrets", False), bundle.redact.get("personal", False)).conversation()


def served_messages(
    bundle: BundleManifest, role: str, messages: Sequence[dict[str, Any]], seen: Conversation
) -> list[dict[str, Any]]:
    """The conversation for the engine: with the role's trained system prompt, redacted as in training.

    If the role was trained with varying system prompts, the client's is kept.

    Raises:
        RequestError: the role's system prompts have a fixed beginning and end that the client's does not match.
    """
    contract = bundle.prompts.get(role)
    places = [place for place, turn in enumerate(messages) if turn.get("role") not in SYSTEM]
    lead = places[0] if places else len(messages)
    if contract is not None and contract.kind != "fixed":
        given = "\n\n".join(str(turn["content"]) for turn in messages[:lead])
        if not contract.fits(given):
            raise RequestError(400, _unfit(role, contract), "messages")
        return without_secrets(messages, seen)
    turns = without_secrets(messages[lead:], seen)
    prompt = bundle.system_prompts.get(role)
    return turns if prompt is None else [Message(role="system", content=prompt).as_chat(), *turns]


def _unfit(role: str, contract: RolePrompt) -> str:
    return (
        f"messages: {role!r} was trained with system prompts that begin with {contract.begins[:80]!r} and end with "
        f"{contract.ends[-80:]!r}; send a system message of that form"
    )


def engine_request(bundle: BundleManifest, asked: Asked, seen: Conversation) -> dict[str, Any]:
    """The request for the engine; `seen` collects the values that are redacted in the client's."""
    request = dict(asked.options)
    request.setdefault("temperature", bundle.settings["temperature"])
    if "max_completion_tokens" not in request:
        request.setdefault("max_tokens", bundle.settings["max_new_tokens"])
    tools = {"tools": asked.tools} if asked.tools else {}
    served = served_messages(bundle, asked.role, asked.messages, seen)
    return {**without_secrets_elsewhere({**request, **tools}, seen), "messages": served}


def ignored_of(bundle: BundleManifest, asked: Asked) -> dict[str, str]:
    """A header that lists everything in the request that has no effect, including replaced system prompts."""
    contract = bundle.prompts.get(asked.role)
    prompt = bundle.system_prompts.get(asked.role)
    replaced = contract is None or contract.kind == "fixed"
    lead = itertools.takewhile(lambda turn: turn["role"] in SYSTEM, asked.messages)
    others = [f"messages[{index}]" for index, turn in enumerate(lead) if replaced and turn["content"] != prompt]
    names = [*asked.ignored, *others[:10]]
    return {IGNORED_HEADER: ", ".join(names)} if names else {}


def make_app(
    bundle: BundleManifest,
    engine: ServedEngine,
    prompts: PromptCheck | None = None,
    say: Callable[[str], None] = lambda text: None,
    given_up: Callable[[], None] = lambda: None,
) -> Starlette:
    """The ASGI application. The caller starts and stops the engine; the application restarts it if it ends.

    `origin.Door` wraps it.

    Args:
        prompts: of the base that is served; None reads them from the engine's file.
        say: called with a line of text when the engine ends and when it is running again.
        given_up: called when restarting has failed too often.

    Raises:
        InputError: a system prompt of the bundle contains a control token of the base.
    """
    prompts = prompts or PromptCheck(_served_base(engine.settings))
    frames = {role: f"{one.begins} {one.ends}" for role, one in bundle.prompts.items()}
    prompts.check_system_prompts(frames | bundle.system_prompts)
    started = int(time.time())

    def engine_form(body: bytes) -> tuple[Asked, dict[str, Any], Conversation]:
        wanted = read_request(parsed(body), bundle.roles, bundle.settings["context"])
        prompts.refuse_control_tokens(wanted.messages, wanted.tools)
        seen = conversation_of(bundle)
        asked = engine_request(bundle, wanted, seen)
        prompts.refuse_lost(asked["messages"], wanted.tools)
        return wanted, asked, seen

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            async_engine_client() as client,
            kept_engine(engine, say, given_up) as kept,
        ):
            app.state.kept, app.state.answering = kept, Answering(kept, client)
            app.state.large_requests = asyncio.Semaphore(_LARGE_AT_A_TIME)
            yield

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [listed(role) for role in bundle.roles]})

    async def model(request: Request) -> Response:
        role = request.path_params["role"]
        if role not in bundle.roles:
            return error_response(404, f"model {plain(role, 80)!r} is not served here", "model", "model_not_found")
        return JSONResponse(listed(role))

    def listed(role: str) -> dict[str, Any]:
        return {"id": role, "object": "model", "created": started, "owned_by": "journeyman"}

    async def health(request: Request) -> Response:
        kept: KeptEngine = request.app.state.kept
        if kept.ready() is None:
            return JSONResponse({"status": "unavailable", **error_object(kept.why_not())}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def chat(request: Request) -> Response:
        body = await _read_body(request)
        if len(body) <= _SMALL_BYTES:
            wanted, asked, seen = engine_form(body)
        else:  # in a thread, so that other answers are not delayed; at most two at a time, as all share this process
            async with request.app.state.large_requests:
                wanted, asked, seen = await asyncio.to_thread(engine_form, body)
        answering: Answering = request.app.state.answering
        return await answering.answer(request, asked, wanted.role, seen, ignored_of(bundle, wanted))

    routes = [
        Route("/v1/models", models),
        Route("/v1/models/{role:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/health", health),
    ]
    handlers: Any = {RequestError: _refused, HTTPException: _no_route, Exception: _failed}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a redirect would name a host and contain no error object
    return app


def _served_base(settings: EngineSettings) -> Base:
    """The base with the chat template that the engine was given."""
    base = open_base(settings.base)
    if settings.chat_template is None and not settings.template_variables:
        return base
    return TemplatedBase(base, TemplateChoice("", settings.chat_template, settings.template_variables))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error.status, error.message, error.param, error.code)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "no such path", 405: "this path does not support this method"}
    return error_response(error.status_code, said.get(error.status_code, error.detail), headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(500, "the server failed; see its terminal", code="internal_error")


async def _read_body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise RequestError(413, f"the body is larger than {MAX_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)
