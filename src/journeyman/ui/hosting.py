"""The page on a loopback port. Prints nothing."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from journeyman.api.hosting import open_listener, take_connections
from journeyman.errors import UsageError
from journeyman.serving.server import BoundedServer
from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.events import Hub

PORT = 8013
_HOST = "127.0.0.1"
_SHUTDOWN_S = 4.0


class _Server(BoundedServer):
    """Ends the streams of events first, which would last as long as their pages are open."""

    hub: Hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.hub.close()
        late = asyncio.create_task(self._close_late())
        await super().shutdown(sockets)
        late.cancel()

    async def _close_late(self) -> None:
        """Closes connections that were being accepted while all others were told to close. Browsers open spare ones."""
        while True:
            await asyncio.sleep(0.2)
            for connection in list(self.server_state.connections):
                if isinstance(connection, H11Protocol) and (
                    connection.cycle is None or connection.cycle.response_complete
                ):
                    connection.transport.close()


class Hosting:
    """A page whose port takes connections.

    Attributes:
        address: with the token in its fragment, which browsers do not send.
    """

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
        self.address = f"http://{_HOST}:{port}/#token={token}"
        hosts = [f"{name}:{port}" for name in (_HOST, "localhost")]
        guard, hub = make_app(Context.below(folder), [*hosts, *([_HOST, "localhost"] if port == 80 else [])], token)
        self._listener = listener
        self._server = _Server(guard, lambda: None, _SHUTDOWN_S)
        self._server.hub = hub

    def run(self) -> None:
        """Answers until a signal (in the main thread) or `stop`."""
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Asks `run` to return; from any thread."""
        self._server.should_exit = True


@contextmanager
def page(folder: Path, port: int = PORT) -> Iterator[Hosting]:
    """A page over the runs below a folder.

    Args:
        port: 0 takes a free one.

    Raises:
        UsageError: there is no such folder, or the port is taken.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", "Name the folder with your runs: journeyman ui my-runs")
    with open_listener(_HOST, port, "ui") as listener:
        take_connections(listener, _HOST)
        yield Hosting(folder, listener)
