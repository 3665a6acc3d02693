"""Keeps an engine running while the port is open: one that ended is noticed, and another takes its place.

Requests that the dead one had at hand fail, with an error that says so; what comes until the next one is ready
is refused with 503. Asking again is the client's to decide: the request may be what killed it.
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

_LOOK_EVERY_S = 0.1
_STEADY_S = 60.0
_WAITS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
"""Before each further start. An engine that ran a minute begins anew; after the last one it is given up."""


class KeptEngine:
    """The engine that answers now. Use `kept_engine`, which watches it."""

    def __init__(self, engine: ServedEngine, say: Callable[[str], None], given_up: Callable[[], None]) -> None:
        self.settings: EngineSettings = engine.settings
        self._engine, self._say, self._given_up = engine, say, given_up
        self._identity = engine.engine_identity
        self._started = time.monotonic()
        self._lock = threading.RLock()  # a signal may come while it is held
        self.stopping = False
        self.failed = False

    def ready(self) -> ServedEngine | None:
        """The engine to ask; None while there is none."""
        return self._engine if self._engine.alive and not self.stopping else None

    def why_not(self) -> str:
        """What a client is told about an engine that does not answer."""
        if self.stopping:
            return "the server is shutting down"
        if self.failed:
            return "the engine ended too often and is not started again"
        if not self._engine.alive:
            return "the engine ended; it is being started again"
        return "the engine broke off before its answer was complete"

    def last_call(self) -> None:
        """Ends the engine and whatever it has at hand; no other is started."""
        with self._lock:
            self.stopping = True
        self._engine.kill()

    async def keep(self) -> None:
        """Waits for the engine's end and starts the next, until it is given up or this is cancelled."""
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
                self._say(f"the engine {how}; {failures} further starts did not help")
                self._given_up()
                break
            self._say(f"the engine {how}; it is started again, try {failures + 1} of {len(_WAITS_S)}")
            await asyncio.sleep(_WAITS_S[failures])
            failures += 1
            try:
                await self._start()
                self._say("the engine answers again")
            except (EngineError, OSError) as error:
                self._say(str(error))

    async def _start(self) -> None:
        """In a thread of its own: loading may take minutes, and the end of the server does not wait for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def work() -> None:
            failed: BaseException | None = None
            try:
                self._take(self._same(start_engine(self.settings)))
            except BaseException as error:
                failed = error
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, failed)

        threading.Thread(target=work, name="engine start", daemon=True).start()
        await done

    def _same(self, engine: ServedEngine) -> ServedEngine:
        """The engine, unless its package was replaced while the server ran: what answers now would be unevaluated."""
        if found := self._identity.differences(engine.engine_identity):
            engine.stop()
            raise EngineError(
                f"the engine was replaced while the server ran: {'; '.join(found)}", "Restart journeyman serve"
            )
        return engine

    def _take(self, engine: ServedEngine) -> None:
        with self._lock:
            if not self.stopping:
                old, self._engine, self._started = self._engine, engine, time.monotonic()
                engine = old
        engine.stop()

    def stop(self) -> None:
        """Ends the engine at hand, and one that is being started as soon as it is there."""
        with self._lock:
            self.stopping = True
        self._engine.stop()


@asynccontextmanager
async def kept_engine(
    engine: ServedEngine, say: Callable[[str], None], given_up: Callable[[], None]
) -> AsyncIterator[KeptEngine]:
    """The engine, started again whenever it ends while this is open; the last one is stopped at the end.

    Args:
        say: hears what happens to it.
        given_up: called once starting it again has failed too often.
    """
    kept = KeptEngine(engine, say, given_up)
    watching = asyncio.create_task(kept.keep())
    try:
        yield kept
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        kept.stop()
