"""Asks the student, and says why its answer is not passed on, as far as that can be known before the first byte is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from multidict import CIMultiDict

from journeyman.config import SECRET_HEADERS, RouteConfig
from journeyman.gateway.bodies import body_of
from journeyman.gateway.forwarding import Forwarder, Target, Unanswered
from journeyman.gateway.plans import Answered
from journeyman.keys import bearer
from journeyman.routing.judging import JudgeBefore
from journeyman.routing.requests import RequestReader, StudentRequest
from journeyman.sources.streams import events_of

NAME = "student"
"""The student as an upstream, in rows."""
MOST_BYTES = 8 << 20
"""The largest answer that is held or compared."""
_EVENTS = "text/event-stream"


@dataclass
class Failed(Exception):
    """The student's answer is not passed on.

    Attributes:
        reason: a code for rows and headers: unreachable, silent, slow, status_503, stream_error, check_NAME, …
        why: in a sentence.
        status, kind, coding, pieces: what came of an answer.
    """

    reason: str
    why: str = ""
    status: int | None = None
    kind: str = ""
    coding: str = ""
    pieces: list[bytes] = field(default_factory=list)


class Student:
    """The port of `journeyman serve`.

    Args:
        key: of that port; None: it needs none.
        before: the checks that an answer can wait for.
    """

    def __init__(
        self, forward: Forwarder, target: Target, key: str | None, config: RouteConfig, before: JudgeBefore,
        reader: RequestReader,
    ) -> None:  # fmt: skip
        self._forward, self._target, self._config, self._before = forward, target, config, before
        self._key, self._reader = {} if key is None else bearer(key), reader

    async def send(self, request: StudentRequest) -> aiohttp.ClientResponse:
        """Sends a request for its role; returns the answer, whose headers have arrived.

        Neither headers nor query have the client's keys then: the query is left out.

        Raises:
            Unanswered: as Forwarder.send does, or the request cannot be written again.
        """
        asked = request.asked
        headers = CIMultiDict(
            (name, value) for name, value in asked.headers.items() if name.lower() not in _NOT_FOR_STUDENT
        )
        headers.extend(self._key)
        headers["Content-Type"] = "application/json"
        try:
            body = await self._reader.named(request)
        except RecursionError as error:
            raise Unanswered("upstream_unasked", "the request is nested too deeply") from error
        return await self._forward.send(self._target, asked.method, request.path, headers, body)

    async def answer(self, request: StudentRequest) -> Answered:
        """The answer, as good as can be known: complete and checked, or the beginning of a stream.

        Raises:
            Failed: the teacher should answer.
        """
        began, config = asyncio.get_running_loop().time(), self._config
        first, whole = began + config.first_s, began + config.whole_s
        streams = request.body.get("stream") is True
        try:
            # The headers of an answer that is not streamed come with the whole of it.
            async with asyncio.timeout_at(first if streams else whole):
                got = await self.send(request)
        except TimeoutError as error:
            raise _silent(Failed(""), config) if streams else _slow(Failed(""), config) from error
        except Unanswered as error:
            raise _missing(Failed(""), error) from error
        failed = Failed(
            "", "", got.status, got.headers.get("Content-Type", ""), got.headers.get("Content-Encoding", "")
        )
        try:
            if got.status >= 400:
                await self._whole(got, failed, whole)
                raise _because(failed, f"status_{got.status}", _said(failed))
            if failed.kind.partition(";")[0].strip().lower() == _EVENTS and not config.hold:
                return await self._begun(got, failed, first if streams else whole)
            await self._whole(got, failed, whole)
            await asyncio.to_thread(self._check, request, failed)
        except BaseException:
            got.close()  # the student stops working on it
            raise
        return Answered(NAME, got, failed.pieces, complete=True)

    async def _begun(self, got: aiohttp.ClientResponse, failed: Failed, until: float) -> Answered:
        """A stream whose first event has arrived, and is no error."""
        pieces = self._forward.pieces(got)
        try:
            async with asyncio.timeout_at(until):
                async for piece in pieces:
                    failed.pieces.append(piece)
                    data = b"".join(failed.pieces)
                    if b"\n\n" in data or b"\r\n\r\n" in data or len(data) > MOST_BYTES:
                        break
        except TimeoutError as error:
            raise _silent(failed, self._config) from error
        except Unanswered as error:
            raise _missing(failed, error) from error
        if not failed.pieces:
            raise _because(failed, "stream_empty", "the stream ended without an event")
        if _is_error(b"".join(failed.pieces)):
            raise _because(failed, "stream_error", _said(failed))
        return Answered(NAME, got, failed.pieces)

    async def _whole(self, got: aiohttp.ClientResponse, failed: Failed, until: float) -> None:
        size = 0
        try:
            async with asyncio.timeout_at(until):
                async for piece in self._forward.pieces(got):
                    failed.pieces.append(piece)
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise _because(failed, "too_large", f"the answer is larger than {MOST_BYTES >> 20} MiB")
        except TimeoutError as error:
            raise _slow(failed, self._config) from error
        except Unanswered as error:
            raise _missing(failed, error) from error

    def _check(self, request: StudentRequest, failed: Failed) -> None:
        body = body_of(b"".join(failed.pieces), failed.kind, failed.coding, MOST_BYTES)
        if body.stream is not None and not body.stream.ended:
            raise _because(failed, "stream_error", "the stream did not end")
        try:
            found = self._before(request.role, request.body, body.value, request.path)
        except Exception as error:  # such as what is nested too deeply: the teacher answers
            raise _because(failed, "check_error", f"{type(error).__name__}: {error}") from error
        if found.outcome == "fail":
            raise _because(failed, f"check_{found.check}", found.why)


_NOT_FOR_STUDENT = frozenset({"cookie", "content-type", "content-encoding", *SECRET_HEADERS})


def _because(failed: Failed, reason: str, why: str) -> Failed:
    failed.reason, failed.why = reason, why
    return failed


def _silent(failed: Failed, config: RouteConfig) -> Failed:
    return _because(failed, "silent", f"nothing within route.first_s ({config.first_s:g} s)")


def _slow(failed: Failed, config: RouteConfig) -> Failed:
    return _because(failed, "slow", f"not complete within route.whole_s ({config.whole_s:g} s)")


def _missing(failed: Failed, error: Unanswered) -> Failed:
    return _because(failed, error.code.replace("upstream", "student"), error.what)


def _is_error(data: bytes) -> bool:
    """Whether a stream begins with an error."""
    events, _ = events_of(data.decode("utf-8", "replace"))
    try:
        first: Any = json.loads(events[0]) if events else None
    except ValueError:
        return False
    return isinstance(first, dict) and (bool(first.get("error")) or first.get("type") == "error")


def _said(failed: Failed) -> str:
    return b"".join(failed.pieces)[:300].decode("utf-8", "replace")
