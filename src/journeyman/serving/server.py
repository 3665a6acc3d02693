"""The HTTP server: its connections are limited, and it ends within a bounded time, no matter what its clients are still
sending or reading."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from journeyman.serving.connections import Limits, guarded_protocol, most_connections
from journeyman.serving.writing import PatientWriter

_log = logging.getLogger(__name__)
REQUEST_S = 30.0
"""Default time that a client may take for the headers of a request."""
SHUTDOWN_S = 10.0
"""Default time from the first signal to the end of the process. A second signal ends it at once."""
_ANSWERS, _CONNECTIONS = 0.5, 0.7
"""Parts of that time."""
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SAY_EVERY_S = 60.0
_WAITING = 1024
"""Connections that may wait to be accepted; they are no open files yet."""


class BoundedServer(uvicorn.Server):
    """A server that gives current answers half of `shutdown_s` to finish, and connections 0.7 of it to close."""

    def __init__(
        self,
        app: ASGIApp,
        last_call: Callable[[], None],
        shutdown_s: float = SHUTDOWN_S,
        request_s: float = REQUEST_S,
        most: int | None = None,
    ) -> None:
        """Makes a server that does not run yet.

        Args:
            last_call: ends the engine: requests that still wait for it then fail with an error that says why.
            request_s: how long a connection may be open without the complete headers of a request.
            most: open connections; None: as many as the process's limit of open files allows.
        """
        limits = Limits(most or most_connections(), request_s)
        super().__init__(
            uvicorn.Config(
                PatientWriter(app),
                http=guarded_protocol(limits),
                ws="none",
                backlog=limits.backlog,
                log_config=None,  # its log lines take the same way to the terminal as all other text
                log_level="error",  # anybody can cause its warnings, one with each invalid request
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(_CONNECTIONS * shutdown_s),
            )
        )
        self._last_call, self._shutdown_s = last_call, shutdown_s
        self._said = -math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops the server, the second one the process; the kernel's alarm ends a hanging shutdown."""
        if self.should_exit:
            self._last_call()
            os._exit(128 + sig)
        self.should_exit = True
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._shutdown_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._failed)
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_WAITING)  # asyncio uses one number for what waits here and for what it accepts in one go

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Says once a minute that no connection can be accepted; asyncio says so thousands of times a second."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_RESOURCES):
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= _SAY_EVERY_S:
            self._said = loop.time()
            _log.error("connections cannot be accepted: %s", error.strerror)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        calling = asyncio.get_running_loop().call_later(_ANSWERS * self._shutdown_s, self._last_call)
        await super().shutdown(sockets)
        calling.cancel()
