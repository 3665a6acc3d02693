"""Applications one after the other behind one port: a new one takes new requests, the old one finishes those it has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from journeyman.config import ServeConfig
from journeyman.errors import JourneymanError

_LOOK_EVERY_S = 1.0
_MARGIN_S = 60.0
_MOST_OLD = 2
"""Old applications that may still have requests when another one is loaded: two, so that a rollback right after a
promotion does not wait for the requests of both."""


def longest_request_s(config: ServeConfig) -> float:
    """Longer than any request can take: every part of it has a limit of its own.

    Several answers to one request (`n`) may wait and be answered after the first one has begun.
    """
    return config.body_s + 2 * (config.queue_s + config.restart_s + config.answer_s) + _MARGIN_S


@dataclass(frozen=True)
class Next:
    """An application that is to take over; its engine runs.

    Attributes:
        took_over: called once new requests go to it.
        abandon: called instead if it cannot take over; ends its engine.
    """

    app: Starlette
    took_over: Callable[[], None]
    abandon: Callable[[], None]


class _Running:
    """An application between its start and its end, with its engine."""

    def __init__(self, app: Starlette) -> None:
        self.app, self.requests = app, 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._lifespan: AbstractAsyncContextManager[object] = app.router.lifespan_context(app)

    async def start(self) -> None:
        await self._lifespan.__aenter__()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self._idle.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    def last_call(self) -> None:
        if hasattr(self.app.state, "kept"):
            self.app.state.kept.last_call()

    async def finish(self, within_s: float) -> None:
        """Waits for the current requests, and ends the application and its engine."""
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            self.last_call()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), 5.0)
        finally:
            # In a task, and waited for, so that a cancellation does not leave an engine behind.
            ending = asyncio.ensure_future(self._lifespan.__aexit__(None, None, None))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await asyncio.wait({ending})
                raise


class SwitchingApp:
    """An ASGI application in front of others.

    Args:
        first: answers first.
        following: called in a thread once a second: what takes over; None: nothing does. It may take as long as an
            engine needs to load, and both engines are in memory until the old application has finished. It is not
            called while two old ones have not, so there are never more than three.
        told: hears why there is no next application.
        retire_s: how long the requests of an old application may take. Then its engine is killed, and they fail with
            an error.
    """

    def __init__(
        self,
        first: Starlette,
        following: Callable[[], Next | None],
        told: Callable[[str], None],
        retire_s: float | None = None,
    ) -> None:
        self._first, self._following, self._told = first, following, told
        self._retire_s = longest_request_s(ServeConfig()) if retire_s is None else retire_s
        self._now: _Running | None = None
        self._old: set[_Running] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._now is not None, "the server takes no request before the lifespan has begun"
        await self._now.answer(scope, receive, send)  # chosen and counted before anything else can run

    def last_call(self) -> None:
        """Kills every engine: requests that still wait for one fail with an error that says why."""
        for running in (*self._old, *([self._now] if self._now else [])):
            running.last_call()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._now = _Running(self._first)
        await self._now.start()
        await send({"type": "lifespan.startup.complete"})
        following = asyncio.create_task(self._follow())
        await receive()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, self._now.finish(0.0), return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _follow(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if len(self._retiring) >= _MOST_OLD:
                continue
            try:
                found = await self._next()
                if found is not None:
                    await self._switch(found)
                said = ""
            except Exception as error:  # whatever it is: otherwise, no release would ever take over again
                what = error if isinstance(error, JourneymanError | OSError) else f"{type(error).__name__}: {error}"
                if said != (said := f"{what}; the release that is served stays"):  # once, not with every look
                    self._told(said)

    async def _next(self) -> Next | None:
        """In a thread of its own: loading may take minutes, and a shutdown must not wait for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Next | None] = loop.create_future()

        def settle(found: Next | None, error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(found)
            elif found is not None:
                threading.Thread(target=found.abandon, name="late release").start()

        def work() -> None:
            found, failed = None, None
            try:
                found = self._following()
            except BaseException as error:
                failed = error
            try:
                loop.call_soon_threadsafe(settle, found, failed)
            except RuntimeError:  # the loop has been closed in the meantime
                if found is not None:
                    found.abandon()

        threading.Thread(target=work, name="next release", daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:  # both in the same moment
                settle(done.result(), None)
            raise

    async def _switch(self, found: Next) -> None:
        new, old = _Running(found.app), self._now
        assert old is not None
        try:
            await new.start()
        except BaseException:
            await asyncio.to_thread(found.abandon)
            raise
        self._now = new
        self._old.add(old)
        task = asyncio.create_task(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        found.took_over()

    async def _retire(self, old: _Running) -> None:
        try:
            await old.finish(self._retire_s)
        finally:
            self._old.discard(old)
