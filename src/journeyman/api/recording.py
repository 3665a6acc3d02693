"""A recorder for a run folder: its settings, its lock, its port. Prints nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from aiohttp import web

from journeyman.api.access import keys_of
from journeyman.api.hosting import address_of, open_listener, take_connections
from journeyman.api.routing import Routing, opened
from journeyman.config import Config, config_in
from journeyman.errors import UsageError
from journeyman.gateway.checking import Count, count
from journeyman.gateway.forwarding import Forwarder, Target, forwarder, target_of
from journeyman.gateway.ledger import Ledger, MakerApart, MakerHere, RowMaker
from journeyman.gateway.page import Page
from journeyman.gateway.plans import Router, ToUpstream
from journeyman.gateway.recorder import Recorder, Request
from journeyman.gateway.rows import RowSettings
from journeyman.locking import is_at_work, locked
from journeyman.serving.keyring import Keys

_SERVER = {
    "handler_cancellation": True, "auto_decompress": False, "access_log": None, "keepalive_timeout": 75.0,
    "max_line_size": 1 << 16, "max_field_size": 1 << 16, "lingering_time": 2.0,
}  # fmt: skip


def rows_folder(folder: Path, config: Config) -> Path:
    return folder / config.record.folder


class Recording:
    """A recorder whose port takes connections.

    Attributes:
        address: the base URL for clients, http://HOST:PORT/v1.
        ledger: its ledger.
    """

    def __init__(
        self, ledger: Ledger, listener: socket.socket, target: Target, config: Config, page: Page, keys: Keys,
        hosts: Sequence[str], routing: Routing | None = None,
    ) -> None:  # fmt: skip
        self.ledger, self.address = ledger, address_of(config.record.host, listener.getsockname()[1])
        self._listener, self._target, self._config, self._page = listener, target, config, page
        self._keys, self._hosts, self._routing = keys, hosts, routing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        """Answers until a signal (in the main thread) or `stop`."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """Asks `run` to return; from any thread, also before it has begun."""
        self._stopped.set()
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopped.is_set():
            self._stop.set()
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(one, self._stop.set)
        record = self._config.record
        quiet = logging.getLogger("journeyman.gateway")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        async with forwarder(record.silent_s) as forward, self._router(forward) as router:
            recorder = Recorder(self.ledger, forward, router, record, self._page, self._hosts, self._keys)
            server = web.Server(recorder, request_factory=_request, logger=quiet, **_SERVER)  # type: ignore[arg-type]
            listening = await self._loop.create_server(server, sock=self._listener, backlog=1024)
            await self._stop.wait()
            listening.close()
            server.pre_shutdown()
            with suppress(TimeoutError):
                async with asyncio.timeout(record.shutdown_s):
                    while recorder.open:
                        await asyncio.sleep(0.02)
            recorder.stopping = True
            await server.shutdown(1.0)

    @asynccontextmanager
    async def _router(self, forward: Forwarder) -> AsyncIterator[Router]:
        if self._routing is None:
            yield ToUpstream(forward, self._target)
            return
        async with self._routing.router(forward) as router:
            yield router


def _request(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]
    return Request(message, payload, protocol, writer, task, asyncio.get_running_loop())


@contextmanager
def recording(
    folder: Path,
    upstream: str | None = None,
    port: int | None = None,
    *,
    told: Callable[[str], None] = lambda text: None,
    maker: Callable[[RowSettings], RowMaker] = MakerApart,
    assess: bool = True,
) -> Iterator[Recording]:
    """A recorder; its rows are written at the end.

    Args:
        folder: of a run; its config file, keys and rows.
        upstream, port: replace those of the config file.
        told: hears warnings.
        maker: of rows.
        assess: if [route] names a student: judge the answers and decide about canaries, in a process of its own.

    Raises:
        UsageError: no upstream is named, the port is taken, or another recorder is at work in the folder.
        DiskError: the folder cannot be written.
    """
    config = config_in(folder)
    record = config.record
    if not (upstream or record.upstream):
        raise UsageError(
            "no upstream is named", "Name the API that answers: journeyman record --upstream https://api.openai.com"
        )
    target = target_of(upstream or record.upstream)
    keys = keys_of(folder, None, record.host, told)
    rows = rows_folder(folder, config)
    with (
        open_listener(record.host, record.port if port is None else port, "record") as listener,
        locked(rows),
    ):
        rows.chmod(0o700)
        settings = RowSettings(record, config.redact)
        page = Page([rule.role for rule in record.roles], target.name)
        ledger = Ledger(rows, settings, maker(settings), told, page.hear)
        try:
            page.ledger = ledger
            if not ledger.in_memory:
                told(
                    f"warning: the journal {ledger.journal} is on a disk: exchanges are on it as they were sent, with "
                    "their secrets, until their rows are written; set record.journal to a folder in memory"
                )
            if ledger.recovered:
                told(f"{ledger.recovered} exchanges of a recorder that was killed become rows")
            take_connections(listener, record.host)
            hosts = [record.host, *record.allow_hosts]
            if not config.route.student:
                yield Recording(ledger, listener, target, config, page, keys, hosts)
                return
            own = address_of(record.host, listener.getsockname()[1])
            with opened(folder, config, rows, target, told, maker, own, assess=assess) as routing:
                try:
                    yield Recording(ledger, listener, target, config, page, keys, hosts, routing)
                finally:
                    ledger.close()  # its last rows are judged too
        finally:
            ledger.close()


def checked(folder: Path, told: Callable[[str], None] = lambda text: None) -> Count:
    """Counts the ledger of a run folder. If no recorder is at work, what a killed one left becomes rows before.

    Raises:
        UsageError: nothing was recorded there.
        DiskError: the rows of a killed recorder cannot be written.
    """
    config = config_in(folder)
    rows = rows_folder(folder, config)
    if not rows.is_dir():
        raise UsageError(
            f"{rows}: nothing was recorded there", "Name the run folder: journeyman record --check --dir RUN"
        )
    if not is_at_work(rows):
        with locked(rows):
            settings = RowSettings(config.record, config.redact)
            ledger = Ledger(rows, settings, MakerHere(settings), told, lambda row: None)
            ledger.close()
    return count(rows, config.record.journal)
