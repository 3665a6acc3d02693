"""Sends validated requests to the engine and returns its answers in the client's dialect, whole or streamed.

If a client disconnects, its request is cancelled: the connection to the engine is closed, and the engine, which watches
for that, stops working on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from journeyman.config import ServeConfig
from journeyman.protocols import ServedEngine
from journeyman.redaction.redactor import Conversation
from journeyman.serving.answers import named
from journeyman.serving.copies import joined, merged, of_copy
from journeyman.serving.dialects.dialect import Dialect, JsonAnswer
from journeyman.serving.endings import Endings
from journeyman.serving.engine import KeptEngine
from journeyman.serving.errors import LATE, BrokenStream, RequestError
from journeyman.serving.forced_call import ForcedCalls
from journeyman.serving.observing import CLIENT_LEFT, Record, note, record_of
from journeyman.serving.redacting import asks_for_json, restored_answer
from journeyman.serving.requests import Asked
from journeyman.serving.stream import restored_events, served_stream
from journeyman.serving.turns import Places, Turn, Turns
from journeyman.serving.upstream import Late, Lost, Upstream, UpstreamAnswer

_T = TypeVar("_T")
_PATH = "/v1/chat/completions"
_AGAIN_S = "2"
_COUNTS = 1
_ABOUT_THE_REQUEST = {400: 400, 413: 413, 422: 400}
_BUSY = (429, 503, 529)


@dataclass(frozen=True)
class Call:
    """A request on its way to the engine.

    Attributes:
        body: the engine's form of it, redacted.
        seen: the values that were redacted, which are restored in the answer.
        headers: of the response.
    """

    dialect: Dialect
    asked: Asked
    body: Mapping[str, Any]
    seen: Conversation
    headers: Mapping[str, str]


class Answering:
    """Sends requests to the currently running engine, each in its turn."""

    def __init__(self, kept: KeptEngine, client: Upstream, config: ServeConfig) -> None:
        self.kept, self._client, self._config = kept, client, config
        self.turns = Turns(kept.settings.parallel, config.queue, config.queue_s)
        self.counts = Turns(_COUNTS, config.queue, config.queue_s)
        """Those of requests for a number of tokens, which don't wait for the answers of others."""

    async def answer(self, request: Request, call: Call) -> Response:
        """The response to a request.

        Raises:
            RequestError: the engine does not run, fails or refuses, or too many others are waiting.
        """
        record = record_of(request.scope)
        if call.asked.streamed:
            return await self._streamed(request, call, record)
        with self.turns.places(call.asked.copies) as places:
            answer = await while_connected(request, self._whole(call, record, places))
        if answer is None:
            return Response(status_code=CLIENT_LEFT)
        note(record, answer)
        return JsonAnswer(call.dialect.whole(answer, call.asked), headers=dict(call.headers))

    async def _whole(self, call: Call, record: Record, places: Places) -> dict[str, Any]:
        async def one(number: int) -> dict[str, Any]:
            async with AsyncExitStack() as held:
                upstream, _ = await self._opened(held, record, call, places, number)
                document = _document(upstream.status, await self._body(upstream))
                record.hear(document, number)
                return restored_whole(document, call.asked, call.seen, in_json=asks_for_json(call.body))

        if call.asked.copies == 1:
            return await one(0)
        tasks = [asyncio.create_task(one(number)) for number in range(call.asked.copies)]
        try:
            return joined(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _streamed(self, request: Request, call: Call, record: Record) -> Response:
        everything, held, turns = AsyncExitStack(), AsyncExitStack(), list[Turn]()
        places = everything.enter_context(self.turns.places(call.asked.copies))
        everything.push_async_callback(held.aclose)

        def stalled() -> None:
            for turn in turns:
                turn.release()

        try:
            opened = await while_connected(request, self._opened(held, record, call, places))
        except BaseException:
            await everything.aclose()
            raise
        if opened is None:
            await everything.aclose()
            return Response(status_code=CLIENT_LEFT)
        upstream, turn = opened
        turns.append(turn)
        events = self._events(call, record, held, upstream)
        if call.asked.copies > 1:
            others = [self._further(call, record, places, number, turns) for number in range(1, call.asked.copies)]
            events = merged([events, *others])
        pieces = served_stream(events, call.dialect.writer(call.asked), record, stalled)
        return StreamedAnswer(everything, pieces, call.headers)

    async def _events(
        self, call: Call, record: Record, held: AsyncExitStack, upstream: UpstreamAnswer, number: int = 0
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed answer. What it holds is given back at its end, not at that of the response: of
        several answers, one may wait for the turn of another."""
        asked = call.asked
        async with held:
            async for event in restored_events(
                upstream.pieces(), asked.role, call.seen, in_json=asks_for_json(call.body), must_call=asked.must_call,
                why=self.kept.why_not, heard=lambda event: record.hear(event, number),
            ):  # fmt: skip
                yield event

    async def _further(
        self, call: Call, record: Record, places: Places, number: int, turns: list[Turn]
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a further answer to a streamed request; its turn is added to `turns`."""
        async with AsyncExitStack() as held:
            try:
                upstream, turn = await self._opened(held, record, call, places, number)
            except RequestError as error:
                raise BrokenStream(error.message, error.code or f"status_{error.status}") from error
            turns.append(turn)
            async for event in self._events(call, record, held, upstream, number):
                yield event

    async def _opened(
        self, held: AsyncExitStack, record: Record, call: Call, places: Places, number: int = 0
    ) -> tuple[UpstreamAnswer, Turn]:
        """The engine's response, whose headers have arrived.

        Args:
            held: gets what has to be closed after the answer: the turn and the connection.
            places: those of the request, of which it takes one.
            number: of the answer, if there are several.

        Raises:
            RequestError: the engine does not run, fails or refuses, or too many others are waiting.
        """
        turn = await held.enter_async_context(self.turns.turn(call.asked.role, places))
        record.queue_s = record.since() if record.queue_s is None else record.queue_s
        engine = await self._engine()
        body = {**of_copy(call.body, number), **engine.selection(call.asked.role)}
        if call.asked.streamed:
            body["stream_options"] = {"include_usage": True}
        upstream = await self._ask(engine, _PATH, body)
        held.callback(upstream.close)
        if upstream.status != 200:
            _document(upstream.status, await self._body(upstream))
        return upstream, turn

    async def count_tokens(self, request: Request, call: Call) -> int | None:
        """The number of tokens of the prompt that the engine makes of a request; None if the client has left.

        Raises:
            RequestError: as `answer` does.
        """

        async def asked(engine: ServedEngine, path: str, body: Mapping[str, Any]) -> Any:
            response = await self._ask(engine, path, body)
            try:
                return _document(response.status, await self._body(response))
            finally:
                response.close()

        async def counted() -> int:
            async with self.counts.turn(call.asked.role):
                engine = await self._engine()
                selected = engine.selection(call.asked.role)
                if "model" in selected:  # vLLM's form
                    wanted = {**call.body, **selected, "add_generation_prompt": True}
                    return int((await asked(engine, "/tokenize", wanted))["count"])
                prompt = (await asked(engine, "/apply-template", call.body))["prompt"]
                wanted = {"content": prompt, "add_special": True, "parse_special": True}
                return len((await asked(engine, "/tokenize", wanted))["tokens"])

        return await while_connected(request, counted())

    async def _engine(self) -> ServedEngine:
        engine = await self.kept.running(self._config.restart_s)
        if engine is None:
            raise self._no_answer(503)
        return engine

    def _no_answer(self, status: int) -> RequestError:
        return RequestError(status, self.kept.why_not(), headers={"retry-after": _AGAIN_S})

    async def _ask(self, engine: ServedEngine, path: str, body: Mapping[str, Any]) -> UpstreamAnswer:
        """The engine's response. A request that closes the connection is sent again once, if the engine still runs: it
        may have hit the moment in which the engine drops a connection, or have crashed it."""
        url, time_s = engine.address + path, self._config.answer_s
        with self._refusing():
            return await self._client.post(url, engine.headers, body, time_s, again=lambda: engine.alive)

    async def _body(self, upstream: UpstreamAnswer) -> bytes:
        with self._refusing():
            return await upstream.body()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Says to the client why the engine's answer did not arrive."""
        try:
            yield
        except Late as error:
            raise RequestError(504, LATE) from error
        except Lost as error:
            raise self._no_answer(502) from error


def restored_whole(
    answer: dict[str, Any], asked: Asked, seen: Conversation, *, in_json: bool = False
) -> dict[str, Any]:
    """A complete answer of the engine with the role as its model and the redacted values restored.

    Args:
        in_json: the answer's text is JSON, so restored values are escaped.

    Raises:
        RequestError: it is not complete, or lacks the required tool call (see Endings).
    """
    answer = named(answer, asked.role, seen)
    for choice in answer.get("choices", []):
        choice["message"] = restored_answer(choice.get("message"), seen, in_json=in_json)
    if asked.must_call:
        answer = ForcedCalls().event(answer)
    endings = Endings(must_call=asked.must_call)
    endings.feed(answer)
    endings.check()
    return answer


def _document(status: int, content: bytes) -> dict[str, Any]:
    """The JSON object in the engine's response.

    Raises:
        RequestError: the engine's error, without its paths. What it says about the request stays a 4xx; what it
            says about this server's key or address, or its own state, is no fault of the client: 502, or 503 if it is
            worth another try.
    """
    try:
        answer = json.loads(content)
    except ValueError as fault:
        if status == 200:
            raise RequestError(502, "the engine's answer is not JSON") from fault
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        raise RequestError(400, _too_long(error), "messages", "context_length_exceeded")
    if status in _ABOUT_THE_REQUEST:
        raise RequestError(_ABOUT_THE_REQUEST[status], str(message or "the engine refused"))
    if status in _BUSY:
        raise RequestError(503, str(message or "the engine is busy"), headers={"retry-after": _AGAIN_S})
    if status < 500:  # not its text, which may quote the key
        raise RequestError(502, f"the engine refuses this server's request with status {status}")
    raise RequestError(502, str(message or "the engine failed"))


def _too_long(error: Mapping[str, Any]) -> str:
    asked, most = error.get("n_prompt_tokens"), error.get("n_ctx")
    return f"the prompt has {asked} tokens, and the context is {most} tokens, in which the answer needs room too"


class StreamedAnswer(StreamingResponse):
    """A stream that gives back its turn and closes the engine's connection however it ends: complete, abandoned by the
    client, or cut off."""

    def __init__(self, held: AsyncExitStack, content: Any, headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers=dict(headers))
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._held.aclose()


async def while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T | None:
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
