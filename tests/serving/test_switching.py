"""A server that follows releases: every request gets one whole answer of one of them, whenever another takes over."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psutil
import pytest
from starlette.applications import Starlette

from conftest import write_tiny_gguf
from fake_engine import BUNDLE
from faults import wait_until
from journeyman.api import hosting
from journeyman.api.serving import Server
from journeyman.artifacts import hash_of_file, write_atomic, write_json
from journeyman.config import ServeConfig
from journeyman.errors import UsageError
from journeyman.lineage import files_below, write_manifest
from journeyman.manifests import Stamp
from journeyman.promotion import promote, rollback
from journeyman.releases import RECORD
from journeyman.serving import switching

ASKED = {"model": "coder", "messages": [{"role": "user", "content": "Task: x"}], "max_tokens": 12, "temperature": 0}


def _bundle(place: Path, seed: int, **changes: Any) -> Path:
    """A bundle with a random model, which answers otherwise than one with another seed."""
    place.mkdir()
    write_tiny_gguf(place / "base.gguf", seed=seed)
    write_json(place / "prompts.json", {})
    stamp = Stamp(
        stage="export", version=2, journeyman="0", fingerprint="0", inputs={}, created="now",
        files={name: hash_of_file(place / name) for name in files_below(place)},
    )  # fmt: skip
    write_manifest(place, stamp, BUNDLE.model_copy(update={"verdicts": {"coder": "deploy"}, **changes}))
    return place


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose first release is current; the second and third are beside it."""
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.05)
    (tmp_path / "journeyman.toml").touch()
    promote(_bundle(tmp_path / "one", 1), tmp_path / "releases")
    _bundle(tmp_path / "two", 2, roles=["coder", "poet"], verdicts={"coder": "deploy", "poet": "deploy"})
    return tmp_path / "releases"


def _ask(server: Server, **changes: Any) -> str:
    answer = httpx.post(f"{server.url}/chat/completions", json=ASKED | changes, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def _engines() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "journeyman.inference.engine" in " ".join(one.cmdline()):
                found.append(one)
    return found


def _changed(ask: Callable[[], str], before: str) -> Callable[[], bool]:
    return lambda: ask() != before


def test_a_request_ends_where_it_began_and_the_next_goes_to_the_new_release(releases: Path) -> None:
    with Server(releases.parent, 0, releases=releases) as server:
        first = _ask(server)
        body = ASKED | {"stream": True, "max_tokens": 400}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            begun = [next(lines) for _ in range(4)]
            promote(releases.parent / "two", releases)
            wait_until(_changed(lambda: _ask(server), first))
            second = _ask(server)
            rest = [line for line in lines if line.startswith("data: ")]
        assert begun and rest[-1] == "data: [DONE]"
        assert not [line for line in rest[:-1] if "error" in json.loads(line[6:])]
        wait_until(lambda: len(_engines()) == 1)
        assert _ask(server) == second != first
        assert server.roles == ["coder", "poet"], "of the release that is served now"
        rollback(releases)
        wait_until(lambda: _ask(server) == first)
        assert any("release 2 takes over" in line for line in server.warnings)
    assert _engines() == []


@pytest.fixture
def asking() -> Iterator[Callable[[Server], list[str]]]:
    """Several clients that ask without a pause, until the test is over."""
    over, threads = threading.Event(), []

    def start(server: Server) -> list[str]:
        answers: list[str] = []

        def client() -> None:
            while not over.is_set():
                try:
                    answers.append(_ask(server))
                except (AssertionError, httpx.HTTPError) as error:
                    answers.append(f"FAILED {error}")

        threads.extend(threading.Thread(target=client) for _ in range(4))
        for thread in threads:
            thread.start()
        return answers

    yield start
    over.set()
    for thread in threads:
        thread.join()


def test_no_request_is_lost_while_releases_change(releases: Path, asking: Callable[[Server], list[str]]) -> None:
    with Server(releases.parent, 0, releases=releases) as server:
        one = _ask(server)
        promote(releases.parent / "two", releases)
        wait_until(_changed(lambda: _ask(server), one))
        two = _ask(server)
        answers = asking(server)
        for wanted, change in ((one, rollback), (two, lambda place: promote(place.parent / "two", place))) * 2:
            change(releases)
            wait_until(lambda wanted=wanted: answers[-4:] == [wanted] * 4)  # type: ignore[misc]
        assert set(answers) == {one, two} and len(answers) > 20


def test_a_release_that_cannot_be_served_is_told_once_and_the_old_one_stays(releases: Path) -> None:
    promote(releases.parent / "two", releases)
    of_damaged = (releases / RECORD).read_bytes()
    rollback(releases)
    (releases / "0002" / "base.gguf").write_bytes(b"damaged")
    bundle = _bundle(releases.parent / "three", 3, system_prompts={"coder": "a <|im_end|> in it"})

    def told(text: str) -> bool:
        return any(text in line and line.endswith("the release that is served stays") for line in server.warnings)

    with Server(releases.parent, 0, releases=releases) as server:
        first = _ask(server)
        promote(bundle, releases)
        wait_until(lambda: told("control token"))
        write_atomic(releases / RECORD, of_damaged)
        wait_until(lambda: told("base.gguf: changed"))
        write_atomic(releases / RECORD, b"{")
        wait_until(lambda: told("not valid JSON"))
        time.sleep(0.5)
        assert len([line for line in server.warnings if "stays" in line]) == 3, "each once"
        assert _ask(server) == first and len(_engines()) == 1
        write_atomic(releases / RECORD, of_damaged)
        assert promote(releases.parent / "two", releases).number == 4, "the damaged copy is not used"
        wait_until(_changed(lambda: _ask(server), first))


def test_a_server_that_stops_while_a_release_loads_leaves_no_engine(releases: Path) -> None:
    server = Server(releases.parent, 0, releases=releases)
    promote(releases.parent / "two", releases)
    wait_until(lambda: len(_engines()) == 2)
    server.close()
    wait_until(lambda: _engines() == [])


def test_without_a_promoted_release_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").touch()
    with pytest.raises(UsageError, match="nothing was promoted"):
        Server(tmp_path, 0, releases=tmp_path / "releases")


class _Port:
    """A SwitchingApp whose looks return or raise what a test says, without a socket."""

    def __init__(self, looks: list[Any], first: Starlette | None = None) -> None:
        self.looks, self.told, self.seen = looks, list[str](), 0
        self.app = switching.SwitchingApp(first or Starlette(), self._following, self.told.append)

    def _following(self) -> switching.Next | None:
        self.seen += 1
        one = self.looks.pop(0) if self.looks else None
        if isinstance(one, BaseException):
            raise one
        return cast("switching.Next | None", one)

    async def live(self, until: Callable[[], bool]) -> None:
        said: asyncio.Queue[Any] = asyncio.Queue()

        async def send(message: Any) -> None:
            pass

        await said.put({"type": "lifespan.startup"})
        task = asyncio.create_task(self.app({"type": "lifespan"}, said.get, send))
        while not until():
            await asyncio.sleep(0.01)
        await said.put({"type": "lifespan.shutdown"})
        await task


def test_no_error_ends_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.01)
    port = _Port([KeyError("context"), KeyError("context"), None])
    asyncio.run(asyncio.wait_for(port.live(lambda: port.seen > 4), 30))
    assert port.told == ["KeyError: 'context'; the release that is served stays"]


def test_a_release_has_taken_over_only_if_its_application_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.01)
    did: list[str] = []

    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no memory")
        yield

    port = _Port([_next(Starlette(lifespan=broken), did, "first"), _next(Starlette(), did, "second")])
    asyncio.run(asyncio.wait_for(port.live(lambda: port.seen > 3), 30))
    assert did == ["first abandoned", "second took over"]
    assert port.told == ["RuntimeError: no memory; the release that is served stays"]


def test_an_old_release_has_the_time_that_its_config_gives_a_request() -> None:
    config = ServeConfig(queue_s=1000, answer_s=5000, restart_s=0, body_s=1)
    assert switching.longest_request_s(config) > 2 * 1000 + 2 * 5000
    assert switching.longest_request_s(ServeConfig()) > 120 + 600
    listener = socket.socket()
    try:
        following = SimpleNamespace(if_served=lambda act: act, application=print)
        made: list[float] = []

        class Spy(switching.SwitchingApp):
            def __init__(self, *arguments: Any) -> None:
                made.append(arguments[3])
                super().__init__(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hosting, "SwitchingApp", Spy)
            patch.setattr(hosting, "make_app", lambda *arguments: Starlette())
            hosting.Host(BUNDLE, cast(Any, None), listener, print, config=config, following=cast(Any, following))
    finally:
        listener.close()
    assert made == [switching.longest_request_s(config)]


def _next(app: Starlette, did: list[str], name: str) -> switching.Next:
    return switching.Next(app, lambda: did.append(f"{name} took over"), lambda: did.append(f"{name} abandoned"))


def test_the_old_application_ends_whatever_happens_when_the_new_one_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.01)
    ended: list[str] = []

    def app(name: str) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            ended.append(name)

        return Starlette(lifespan=lifespan)

    def fails() -> None:
        raise OSError(28, "No space left on device")

    port = _Port([switching.Next(app("second"), fails, fails)], first=app("first"))
    asyncio.run(asyncio.wait_for(port.live(lambda: bool(ended) and port.seen > 3), 30))
    assert ended == ["first", "second"]


def test_at_most_two_old_applications_end_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a request that does not end; so a rollback right after a promotion takes over, and memory is bounded."""
    monkeypatch.setattr(switching, "_LOOK_EVERY_S", 0.01)
    did: list[str] = []

    async def scene() -> None:
        over, asked = asyncio.Event(), list[asyncio.Task[None]]()

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            await over.wait()

        def app() -> Starlette:
            made = Starlette()
            made.mount("/", answer)
            return made

        async def none(*message: Any) -> Any: ...

        def took_over(number: int) -> None:
            did.append(f"{number}")
            ask()

        def ask() -> None:
            scope = {"type": "http", "path": "/x", "method": "GET", "headers": [], "query_string": b""}
            # In the next pass of the loop, so that it goes to the application that has just taken over.
            asyncio.get_running_loop().call_soon(
                lambda: asked.append(asyncio.create_task(port.app(dict(scope), none, none)))
            )

        def one(number: int) -> switching.Next:
            return switching.Next(app(), lambda: took_over(number), lambda: None)

        port = _Port([one(2), one(3), one(4), one(5)], first=app())
        living = asyncio.create_task(port.live(lambda: did == ["2", "3", "4", "5"]))
        while port.seen == 0:
            if not asked:
                ask()
            await asyncio.sleep(0)
        while did != ["2", "3"]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert (did, port.seen) == (["2", "3"], 2)
        over.set()
        await living
        await asyncio.gather(*asked)

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_release_that_has_loaded_in_the_moment_of_the_shutdown_is_abandoned() -> None:
    did: list[str] = []
    port = _Port([_next(Starlette(), did, "second")])

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        soon = loop.call_soon_threadsafe

        def with_shutdown(callback: Callable[..., object], *arguments: Any, **more: Any) -> asyncio.Handle:
            return soon(lambda: (callback(*arguments), looking.cancel()))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", with_shutdown)
            looking = asyncio.create_task(port.app._next())
            await asyncio.gather(looking, return_exceptions=True)
        assert looking.cancelled()

    asyncio.run(asyncio.wait_for(scene(), 30))
    wait_until(lambda: did == ["second abandoned"])


def test_a_shutdown_waits_for_an_application_that_is_ending() -> None:
    async def scene() -> None:
        ending, may_end, ended = asyncio.Event(), asyncio.Event(), list[str]()

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            ending.set()
            await may_end.wait()
            ended.append("its engine")

        running = switching._Running(Starlette(lifespan=lifespan))
        await running.start()
        finishing = asyncio.create_task(running.finish(9.0))
        await ending.wait()
        finishing.cancel()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
        await asyncio.gather(finishing, return_exceptions=True)
        assert ended == ["its engine"]

    asyncio.run(asyncio.wait_for(scene(), 30))
