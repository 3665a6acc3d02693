"""A reader that has stopped reading: it holds back its own answer only, and only for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from journeyman.serving.stream import error_object

READER_TIMEOUT_S = 30.0
_PIECE_BYTES = 64 << 10


class PatientWriter:
    """An ASGI application whose answers go out in pieces, each of which a reader has to take in time.

    The server writes no further piece while its buffer is full, and the engine's stream is read no faster than it is
    written: what a slow reader costs is some buffers. One that takes nothing for `timeout_s` loses its connection.
    """

    def __init__(self, app: ASGIApp, timeout_s: float = READER_TIMEOUT_S) -> None:
        self._app, self._timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
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
        except asyncio.CancelledError:  # the server ends; it closes what is left open
            if not begun:
                told = JSONResponse(error_object("the server is shutting down"), 503, {"connection": "close"})
                await told(scope, receive, send)
        except Exception:
            if not stalled:
                raise


def _pieces(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        last = start + _PIECE_BYTES >= len(body)
        more = not last or message.get("more_body", False)
        yield {**message, "body": body[start : start + _PIECE_BYTES], "more_body": more}
