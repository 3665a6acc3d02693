"""Handles stalled readers: they delay only their own answers, and only for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from journeyman.serving.connections import ABORT
from journeyman.serving.errors import error_response

READER_TIMEOUT_S = 30.0
_PIECE_BYTES = 64 << 10


class PatientWriter:
    """An ASGI application that sends answers in pieces, each of which the client must accept in time.

    The server writes no further piece while its buffer is full, and reads the engine's stream no faster than it writes,
    so a slow reader costs only a few buffers. A client that accepts nothing for `timeout_s` is disconnected.
    """

    def __init__(self, app: ASGIApp, timeout_s: float = READER_TIMEOUT_S) -> None:
        self._app, self._timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = stalled = False

        async def patiently(message: Message) -> None:
            nonlocal begun, stalled
            begun = True
            for piece in _pieces(message):
                try:
                    async with asyncio.timeout(0 if stalled else self._timeout_s):
                        await send(piece)
                except TimeoutError:
                    stalled = True
                    raise

        try:
            await self._app(scope, receive, patiently)
        except asyncio.CancelledError:  # the server is shutting down and closes the remaining connections
            if not begun:
                close = {"connection": "close"}
                response = error_response(scope["path"], 503, "the server is shutting down", headers=close)
                await response(scope, receive, send)
        except Exception:
            if not stalled:
                raise
        if stalled and (abort := scope.get("state", {}).get(ABORT)):
            abort()  # closing would wait until the client has read what is buffered
            while (await receive())["type"] != "http.disconnect":
                pass


def _pieces(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        last = start + _PIECE_BYTES >= len(body)
        more = not last or message.get("more_body", False)
        yield {**message, "body": body[start : start + _PIECE_BYTES], "more_body": more}
