"""Keeps an engine running while the server is up: an engine that ends is detected and replaced by a new one.

Requests that the old engine was processing fail with an error that says so. Until the new one is ready, requests are
refused with 503. Retrying is up to the client, because the request itself may have crashed the engine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from journeyman.errors import EngineError
from journeyman.inference.engines import start_engine
from journeyman.protocols import EngineSettings, ServedEngine

Start = Callable[[], ServedEngine]
_LOOK_EVERY_S = 0.1
_READY_EVERY_S = 0.02
_STEADY_S = 60.0
_WAITS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
"""Waits before each restart. They begin anew once an engine has run for _STEADY_S; after the last, serving gives up."""


class KeptEngine:
    """The current engine. Use `kept_engine`, which watches it."""

    def __init__(
        self,
        engine: ServedEngine,
        say: Callable[[str], None],
        given_up: Callable[[], None],
        start: Start | None = None,
    ) -> None:
        self.settings: EngineSettings = engine.settings
        self._engine, self._say, self._given_up = engine, say, given_up
        self._start_again: Start = start or (lambda: start_engine(self.settings))
        self._identity = engine.engine_identity
        self._started = time.monotonic()
        self._lock = threading.RLock()  # reentrant: a signal handler may run while it is held
        self.stopping = False
        self.failed = False
        self.restarts = 0

    def ready(self) -> ServedEngine | None:
        """The running engine; None while there is none."""
        return self._engine if self._engine.alive and not self.stopping else None

    async def running(self, wait_s: float) -> ServedEngine | None:
        """The running engine, after at most `wait_s` if it is being restarted; None if there is none then."""
        deadline = time.monotonic() + wait_s
        while (engine := self.ready()) is None:
            if self.stopping or self.failed or time.monotonic() >= deadline:
                return None
            await asyncio.sleep(_READY_EVERY_S)
        return engine

    def why_not(self) -> str:
        """The message for clients about an engine that does not answer."""
        if self.stopping:
            return "the server is shutting down"
        if self.failed:
            return "the engine ended too often and is not restarted"
        if not self._engine.alive:
            return "the engine ended and is being restarted"
        return "the engine broke off before its answer was complete"

    def last_call(self) -> None:
        """Kills the engine with its current requests; it is not restarted."""
        with self._lock:
            self.stopping = True
        self._engine.kill()

    async def keep(self) -> None:
        """Restarts the engine whenever it ends, until that has failed too often or this task is cancelled."""
        failures = 0
        while not self.stopping:
            if self._engine.alive:
                if time.monotonic() - self._started > _STEADY_S:
                    failures = 0
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            how = self._engine.how_it_ended()
            if failures == len(_WAITS_S):
                self.failed = True
                self._say(f"the engine {how}; {failures} restarts failed")
                self._given_up()
                break
            self._say(f"the engine {how}; restarting it, try {failures + 1} of {len(_WAITS_S)}")
            await asyncio.sleep(_WAITS_S[failures])
            failures += 1
            try:
                await self._start()
                self.restarts += 1
                self._say("the engine is running again")
            except (EngineError, OSError) as error:
                self._say(str(error))

    async def _start(self) -> None:
        """Starts an engine in its own thread: loading may take minutes, and a shutdown must not wait for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def work() -> None:
            failed: BaseException | None = None
            try:
                self._take(self._same(self._start_again()))
            except BaseException as error:
                failed = error
            with suppress(RuntimeError):  # the loop has been closed in the meantime
                loop.call_soon_threadsafe(settle, failed)

        threading.Thread(target=work, name="engine start", daemon=True).start()
        await done

    def _same(self, engine: ServedEngine) -> ServedEngine:
        """Returns the engine; refuses it if its package was replaced meanwhile, as its answers were not evaluated."""
        if found := self._identity.differences(engine.engine_identity):
            engine.stop()
            raise EngineError(
                f"the engine was replaced while the server was running: {'; '.join(found)}", "Restart journeyman serve"
            )
        return engine

    def _take(self, engine: ServedEngine) -> None:
        with self._lock:
            if not self.stopping:
                old, self._engine, self._started = self._engine, engine, time.monotonic()
                engine = old
        engine.stop()

    def stop(self) -> None:
        """Ends the current engine, and one that is still starting as soon as it has started."""
        with self._lock:
            self.stopping = True
        self._engine.stop()


@asynccontextmanager
async def kept_engine(
    engine: ServedEngine,
    say: Callable[[str], None],
    given_up: Callable[[], None],
    start: Start | None = None,
) -> AsyncIterator[KeptEngine]:
    """The engine, restarted whenever it ends while this context is open, and stopped at the end.

    Args:
        say: called with a line of text whenever the engine ends or is running again.
        given_up: called once restarting has failed too often.
        start: starts the engine again; None: as it was started at first, from its settings.
    """
    kept = KeptEngine(engine, say, given_up, start)
    watching = asyncio.create_task(kept.keep())
    try:
        yield kept
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.to_thread(kept.stop)  # other applications answer meanwhile
