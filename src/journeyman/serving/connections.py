"""Limits of the port's connections: how many there are, and how long one may be open without a complete request.

A connection costs an open file. Without limits, clients that connect and send nothing, which need no key for that, take
all files that the process may open, and the port cannot ask its engine any more.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

ABORT = "journeyman.abort"
"""Where a request's `state` has the function that closes its connection at once, without sending what is buffered."""
_MOST, _LEAST = 4096, 8


@dataclass(frozen=True)
class Limits:
    """Limits of the connections.

    Attributes:
        most: how many are open. At one more, the one that has been idle for the longest time is closed; if none is
            idle, that is the new one.
        idle_s: seconds from the connection, or from the last answer, to the complete headers of a request.
    """

    most: int
    idle_s: float

    @property
    def backlog(self) -> int:
        """How many the event loop accepts in one go. `most` is applied about three goes later."""
        return max(_LEAST // 2, self.most // 8)


def most_connections() -> int:
    """Half of the files that this process may open: the rest is for those that are being accepted or closed, for the
    engine and for files."""
    if sys.platform == "win32":
        return _MOST // 8
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if files == resource.RLIM_INFINITY else min(_MOST, max(_LEAST, files // 2))


def guarded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol for HTTP with these limits. It is the one that parses with h11, which limits headers."""

    class Guarded(H11Protocol):
        _since: float
        _timer: asyncio.TimerHandle
        _aborted = False

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, {**app_state, ABORT: self._abort}, _loop)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._since = self.loop.time()
            self._timer = self.loop.call_later(limits.idle_s, self._look)
            if len(self.connections) > limits.most:
                open_ones = [one for one in self.connections if isinstance(one, Guarded) and not one._aborted]
                if len(open_ones) > limits.most:
                    min((one for one in open_ones if one._idle), key=lambda one: one._since)._abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._since = self.loop.time()
            super().on_response_complete()

        @property
        def _idle(self) -> bool:
            """Whether no request is being answered. One that is closing may still wait for a reader of its buffer."""
            return self.cycle is None or self.cycle.response_complete or self.transport.is_closing()

        def _look(self) -> None:
            left = self._since + limits.idle_s - self.loop.time() if self._idle else limits.idle_s
            if left <= 0:
                self._abort()
            else:
                self._timer = self.loop.call_later(left, self._look)

        def _abort(self) -> None:
            self._aborted = True
            self.transport.abort()

    return Guarded
