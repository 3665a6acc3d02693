"""Shutdown of the server: it ends within a bounded time, no matter what its clients are still sending or reading."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from journeyman.serving.writing import PatientWriter

SHUTDOWN_S = 10.0
"""Default time from the first signal to the end of the process. A second signal ends it at once."""
_ANSWERS, _CONNECTIONS = 0.5, 0.7
"""Parts of that time."""


class BoundedServer(uvicorn.Server):
    """A server that gives current answers half of `shutdown_s` to finish, and connections 0.7 of it to close."""

    def __init__(self, app: ASGIApp, last_call: Callable[[], None], shutdown_s: float = SHUTDOWN_S) -> None:
        """`last_call` ends the engine: requests that still wait for it then fail with an error that says why."""
        super().__init__(
            uvicorn.Config(
                PatientWriter(app),
                log_config=None,  # its log lines take the same way to the terminal as all other text
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(_CONNECTIONS * shutdown_s),
            )
        )
        self._last_call, self._shutdown_s = last_call, shutdown_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops the server, the second one the process; the kernel's alarm ends a hanging shutdown."""
        if self.should_exit:
            self._last_call()
            os._exit(128 + sig)
        self.should_exit = True
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._shutdown_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        calling = asyncio.get_running_loop().call_later(_ANSWERS * self._shutdown_s, self._last_call)
        await super().shutdown(sockets)
        calling.cancel()
