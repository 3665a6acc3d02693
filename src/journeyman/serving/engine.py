"""Keeps an engine running while the server is up: an engine that ends or hangs is detected and replaced by a new one.

Requests that the old engine was processing fail with an error that says so. Until the new one is ready, requests are
refused with 503. Retrying is up to the client, because the request itself may have crashed the engine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from journeyman.config import ServeConfig
from journeyman.errors import ChangedArtifact, EngineError, JourneymanError
from journeyman.inference.engines import start_engine
from journeyman.lineage import difference
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.serving.hanging import HangDetector

Start = Callable[[], ServedEngine]
_LOOK_EVERY_S = 0.1
_READY_EVERY_S = 0.02
_PULSE_EVERY_S = 5.0
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
        config: ServeConfig | None = None,
    ) -> None:
        self.settings: EngineSettings = engine.settings
        self._engine, self._say, self._given_up = engine, say, given_up
        self._start_again: Start = start or (lambda: start_engine(self.settings))
        self._identity, self._files, self._files_changed = engine.engine_identity, engine.files, False
        self._config = config or ServeConfig()
        self._over = threading.Event()
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
        if self._files_changed:
            return "the engine ended, and is not started again with files that have changed"
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
            except Exception as error:  # whatever it is: otherwise, the engine would never be started again
                self._files_changed = isinstance(error, ChangedArtifact)
                known = isinstance(error, JourneymanError | OSError)
                self._say(str(error) if known else f"{type(error).__name__}: {error}")
            else:
                self._files_changed = False

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
                self._check_files()
                self._take(self._same(self._start_again()))
            except BaseException as error:
                failed = error
            with suppress(RuntimeError):  # the loop has been closed in the meantime
                loop.call_soon_threadsafe(settle, failed)

        threading.Thread(target=work, name="engine start", daemon=True).start()
        await done

    def _check_files(self) -> None:
        """Compares the files that the first engine has loaded with those on the disk."""
        for path, sha256 in self._files.items():
            if why := difference(path, sha256, "export"):
                raise ChangedArtifact(f"{path}: {why}", "Restore it, or stop journeyman serve")

    def _same(self, engine: ServedEngine) -> ServedEngine:
        """Returns the engine; refuses it if its program or its files were replaced: its answers were not evaluated."""
        found = self._identity.differences(engine.engine_identity)
        found += [f"{path} changed" for path, sha256 in self._files.items() if engine.files.get(path) != sha256]
        if found:
            engine.stop()
            raise EngineError(
                f"the engine was replaced while the server was running: {'; '.join(found)}", "Restart journeyman serve"
            )
        return engine

    def watch_for_hanging(self) -> None:
        """Kills an engine that hangs, so that `keep` starts another one; until `stop`.

        Asking it may take seconds, so this is for a thread of its own.
        """
        watched: ServedEngine | None = None
        while not self._over.wait(_PULSE_EVERY_S):
            engine, now = self._engine, time.monotonic()
            if engine is not watched:
                watched, detector = engine, HangDetector(self._config.hang_s, self._config.answer_s, now)
            pulse = engine.pulse() if engine.alive else None
            if pulse is not None and detector.hangs(pulse, now):
                self._say("the engine hangs: it has requests or does not answer, and gets no further; it is killed")
                engine.kill()

    def _take(self, engine: ServedEngine) -> None:
        with self._lock:
            if not self.stopping:
                old, self._engine, self._started = self._engine, engine, time.monotonic()
                engine = old
        engine.stop()

    def stop(self) -> None:
        """Ends the current engine, and one that is still starting as soon as it has started."""
        self._over.set()
        with self._lock:
            self.stopping = True
        self._engine.stop()


@asynccontextmanager
async def kept_engine(
    engine: ServedEngine,
    say: Callable[[str], None],
    given_up: Callable[[], None],
    start: Start | None = None,
    config: ServeConfig | None = None,
) -> AsyncIterator[KeptEngine]:
    """The engine, restarted whenever it ends or hangs while this context is open, and stopped at the end.

    Args:
        say: called with a line of text whenever the engine ends or is running again.
        given_up: called once restarting has failed too often.
        start: starts the engine again; None: as it was started at first, from its settings.
        config: says when it hangs.
    """
    kept = KeptEngine(engine, say, given_up, start, config)
    threading.Thread(target=kept.watch_for_hanging, name="engine watch", daemon=True).start()
    watching = asyncio.create_task(kept.keep())
    try:
        yield kept
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.to_thread(kept.stop)  # other applications answer meanwhile
