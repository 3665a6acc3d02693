"""Handles stalled readers: they delay only their own answers, and only for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from journeyman.serving.connections import ABORT
from journeyman.serving.errors import error_response

READER_TIMEOUT_S = 30.0
_PIECE_BYTES = 64 << 10


class Patience:
    """Notices that a client accepts nothing. One timer looks now and then, because one for each piece of an answer
    costs as much as writing the piece.

    Attributes:
        since: when the piece that is being written was begun, in the time of the event loop; None: nothing is being
            written.

    Args:
        most_s: how long a piece may take, a quarter more or less.
        then: called once a piece has taken so long, and again while it still does.
    """

    def __init__(self, most_s: float, then: Callable[[], None]) -> None:
        self.since: float | None = None
        self._most_s, self._then = most_s, then
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Patience:
        self._timer = self._loop.call_later(self._most_s / 4, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> None:
        """A piece is being written from now on."""
        self.since = self._loop.time()

    def end(self) -> None:
        """It has been accepted."""
        self.since = None

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._most_s / 4, self._look)
        if self.since is not None and self._loop.time() - self.since >= self._most_s:
            self._then()


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

        def give_up() -> None:
            nonlocal stalled
            if not stalled:
                stalled = True
                limit.reschedule(0)

        async def patiently(message: Message) -> None:
            nonlocal begun
            begun = True
            for piece in _pieces(message):
                if stalled:
                    raise TimeoutError
                patience.begin()
                await send(piece)
                patience.end()

        try:
            async with asyncio.timeout(None) as limit:
                with Patience(self._timeout_s, give_up) as patience:
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
