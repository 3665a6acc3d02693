"""The server for one bundle: the role is the model's name, and several APIs are dialects of one question.

It runs in front of the engine. Validated fields are passed on (serving.dialects), requests that the base's chat
template does not support are refused (serving.prompts), and the system prompt is always the one with which the role was
trained and evaluated (serving.preparing).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from journeyman.artifacts import hash_of
from journeyman.config import ServeConfig
from journeyman.foreign import named
from journeyman.manifests import BundleManifest
from journeyman.models.base import Base, TemplateChoice
from journeyman.models.opening import open_base
from journeyman.models.templated import TemplatedBase
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.serving.answering import Answering, Call
from journeyman.serving.contents import Contents
from journeyman.serving.dialects.chat import ChatCompletions
from journeyman.serving.dialects.completions import Completions
from journeyman.serving.dialects.dialect import Dialect
from journeyman.serving.dialects.messages import CountTokens, Messages
from journeyman.serving.dialects.responses import Responses
from journeyman.serving.engine import Start, kept_engine
from journeyman.serving.errors import RequestError, error_response
from journeyman.serving.listing import model_routes
from journeyman.serving.metrics import Metrics
from journeyman.serving.observing import CLIENT_LEFT, Record, record_of
from journeyman.serving.operations import operation_routes
from journeyman.serving.preparing import prepared
from journeyman.serving.prompts import PromptCheck
from journeyman.serving.turns import Turns
from journeyman.serving.upstream import upstream

DIALECTS: tuple[Dialect, ...] = (ChatCompletions(), Completions(), Responses(), Messages())
_COUNTING = CountTokens()
COUNTED = {dialect.path: dialect.name for dialect in (*DIALECTS, _COUNTING)}
"""Path → API of the requests that are observed."""
_SMALL_BYTES, _LARGE_AT_A_TIME = 4 << 10, 2
"""Bodies up to a size that is read and checked in milliseconds, and how many larger ones are in work at a time."""


def make_app(
    bundle: BundleManifest,
    engine: ServedEngine,
    prompts: PromptCheck | None = None,
    say: Callable[[str], None] = lambda text: None,
    given_up: Callable[[], None] = lambda: None,
    config: ServeConfig | None = None,
    start: Start | None = None,
    metrics: Metrics | None = None,
) -> Starlette:
    """The ASGI application. The caller starts and stops the engine; the application restarts it if it ends.

    `origin.Door` wraps it.

    Args:
        prompts: of the base that is served; None reads them from the engine's file.
        say: called with a line of text when the engine ends and when it is running again.
        given_up: called when restarting has failed too often.
        config: its limits; None: the defaults.
        start: starts the engine again; None: from its settings.
        metrics: of the port, if other applications had it before; None: new ones.

    Raises:
        InputError: a system prompt of the bundle contains a control token of the base.
    """
    config = config or ServeConfig()
    prompts = prompts or PromptCheck(served_base(engine.settings))
    frames = {role: f"{one.begins} {one.ends}" for role, one in bundle.prompts.items()}
    prompts.check_system_prompts(frames | bundle.system_prompts)

    differences: Counter[tuple[str, str]] = Counter()

    async def call_of(request: Request, dialect: Dialect, turns: Turns) -> Call:
        record = record_of(request.scope)
        with turns.arrival():
            body = await _read_body(request, config)
            arguments = bundle, prompts, dialect, body, config.prompts, record
            try:
                if len(body) <= _SMALL_BYTES:
                    call = prepared(*arguments)
                else:
                    # In a thread, so that other answers are not delayed; few at a time, as all share this process.
                    async with request.app.state.large_requests:
                        call = await asyncio.to_thread(prepared, *arguments)
            finally:
                show_differences(record)
        if config.log_contents:
            record.contents = Contents(call.body["messages"], call.seen.value)
        return call

    def show_differences(record: Record) -> None:
        for difference in record.differences:
            differences[record.role, difference] += 1
            count = differences[record.role, difference]
            if count in (1, 100) or count % 10_000 == 0:
                say(f"{named(record.role)}: prompts that differ from those of the training ({difference}): {count}")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            upstream() as client,
            kept_engine(engine, say, given_up, start, config) as kept,
        ):
            app.state.kept, app.state.answering = kept, Answering(kept, client, config)
            app.state.large_requests = asyncio.Semaphore(_LARGE_AT_A_TIME)
            yield

    def route(dialect: Dialect) -> Route:
        async def endpoint(request: Request) -> Response:
            answering: Answering = request.app.state.answering
            return await answering.answer(request, await call_of(request, dialect, answering.turns))

        return Route(dialect.path, endpoint, methods=["POST"])

    async def count_tokens(request: Request) -> Response:
        answering: Answering = request.app.state.answering
        call = await call_of(request, _COUNTING, answering.counts)
        count = await answering.count_tokens(request, call)
        if count is None:
            return Response(status_code=CLIENT_LEFT)
        return JSONResponse({"input_tokens": count}, headers=dict(call.headers))

    routes = [
        *model_routes(bundle.roles),
        *map(route, DIALECTS),
        Route(_COUNTING.path, count_tokens, methods=["POST"]),
        *operation_routes(),
    ]
    handlers: Any = {RequestError: _refused, HTTPException: _no_route, Exception: _failed}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.state.metrics, app.state.bundle = metrics or Metrics(), identity_of(bundle)
    app.router.redirect_slashes = False  # a redirect would name a host and contain no error object
    return app


def identity_of(bundle: BundleManifest) -> str:
    """A hash of what a bundle says of itself, with the hashes of its base and adapters: the same for every copy."""
    return hash_of(bundle.model_dump(mode="json"))[:16]


def served_base(settings: EngineSettings) -> Base:
    """The base with the chat template that the engine was given."""
    base = open_base(settings.base)
    if settings.chat_template is None and not settings.template_variables:
        return base
    return TemplatedBase(base, TemplateChoice("", settings.chat_template, settings.template_variables))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(request.url.path, error.status, error.message, error.param, error.code, error.headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "no such path", 405: "this path does not support this method"}
    message = said.get(error.status_code, error.detail)
    return error_response(request.url.path, error.status_code, message, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, 500, "the server failed; see its terminal", code="internal_error")


async def _read_body(request: Request, config: ServeConfig) -> bytes:
    chunks, size = [], 0
    try:
        async with asyncio.timeout(config.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > config.max_body_mib << 20:
                    raise RequestError(413, f"the body is larger than {config.max_body_mib} MiB")
                chunks.append(chunk)
    except ClientDisconnect as error:
        raise RequestError(CLIENT_LEFT, "the client left before its request was complete") from error
    except TimeoutError as error:
        raise RequestError(408, f"the request took longer than {config.body_s:g} s to arrive") from error
    return b"".join(chunks)
