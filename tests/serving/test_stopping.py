"""An engine that takes its time to end holds up nobody but itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from fake_engine import BUNDLE, FakeEngine
from faults import wait_until
from journeyman.serving import switching
from journeyman.serving.app import make_app
from journeyman.serving.engine import kept_engine
from journeyman.serving.switching import Next, SwitchingApp


class Slow(FakeEngine):
    """Ends once somebody else has run; `alone` if that took long."""

    def __init__(self, base: Path) -> None:
        super().__init__(base, "http://127.0.0.1:1")
        self.stopping, self.others_run = threading.Event(), threading.Event()
        self.alone: bool | None = None

    def stop(self) -> None:
        self.stopping.set()
        self.alone = not self.others_run.wait(10)

    async def watched(self) -> None:
        """Runs in the event loop while the engine stops."""
        async with asyncio.timeout(10):
            while not self.stopping.is_set():
                await asyncio.sleep(0.01)
        self.others_run.set()


def test_the_event_loop_runs_while_an_engine_ends(tiny_gguf: Path) -> None:
    engine = Slow(tiny_gguf)

    async def serve() -> None:
        watching = asyncio.create_task(engine.watched())
        async with kept_engine(engine, lambda text: None, lambda: None):
            pass
        await watching

    asyncio.run(serve())
    assert engine.alone is False


@pytest.mark.parametrize("late", [False, True])
def test_it_also_runs_while_the_engine_of_a_release_ends_that_is_not_served(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Its application does not start, or it comes when the server already stops."""
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.0)
    first, engine = FakeEngine(tiny_gguf, "http://127.0.0.1:1"), Slow(tiny_gguf)
    asked, go_on = threading.Event(), threading.Event()

    def following() -> Next | None:
        if asked.is_set():
            return None
        asked.set()
        assert not late or go_on.wait(10)
        app = make_app(BUNDLE, engine)
        if not late:
            app.router.lifespan_context = fails
        return Next(app, lambda: None, engine.stop)

    @asynccontextmanager
    async def fails(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no such application")
        yield

    async def serve() -> None:
        events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        events.put_nowait({"type": "lifespan.startup"})

        async def send(message: Any) -> None: ...

        receive: Callable[[], Awaitable[Any]] = events.get
        app = SwitchingApp(make_app(BUNDLE, first), following, lambda text: None)
        serving = asyncio.create_task(app({"type": "lifespan"}, receive, send))
        await asyncio.to_thread(asked.wait, 10)
        if late:
            events.put_nowait({"type": "lifespan.shutdown"})
            await serving
            go_on.set()
        await engine.watched()
        if not late:
            events.put_nowait({"type": "lifespan.shutdown"})
            await serving

    asyncio.run(serve())
    wait_until(lambda: engine.alone is not None)
    assert engine.alone is False
