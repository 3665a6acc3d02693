"""The stream of events: its format, that no change is missed, and that it ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from journeyman.errors import UsageError
from journeyman.ui import events
from journeyman.ui.context import Context
from journeyman.ui.events import Hub, message
from journeyman.ui.finding import RunFolder
from journeyman.ui.hosting import Hosting, page
from journeyman.ui.resources import RESOURCES, log, signatures
from page_runs import write_metrics, write_progress, write_run


def test_the_format_of_an_event() -> None:
    assert message("changed", {"a": ["b\n"]}) == b'event: changed\ndata: {"a": ["b\\n"]}\n\n'


def test_what_changes_is_told_once_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_S", 0.01)
    data: dict[tuple[str, str], int] = {("run", "log"): 1, ("run", "curves"): 1}

    async def check() -> None:
        hub = Hub(lambda: dict(data))
        watching = asyncio.create_task(hub.watch())
        stream = hub.stream()
        assert await anext(stream) == b"event: hello\ndata: {}\n\n"
        data["run", "log"] += 1  # right after the first event: the page reads between the two
        assert await anext(stream) == b'event: changed\ndata: {"run": ["log"]}\n\n'
        data["run", "curves"] += 1
        data["other", "state"] = 1
        del data["run", "log"]
        changed = (await anext(stream)).decode()
        assert json.loads(changed.partition("data: ")[2]) == {"run": ["curves", "log"], "other": ["state"]}
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        watching.cancel()

    asyncio.run(check())


def test_a_page_that_does_not_read_costs_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_S", 0.001)
    data = {("run", "log"): 0}

    async def check() -> None:
        def signatures() -> dict[tuple[str, str], int]:
            data["run", "log"] += 1
            return dict(data)

        hub = Hub(signatures)
        watching = asyncio.create_task(hub.watch())
        stream = hub.stream()
        await anext(stream)
        while data["run", "log"] < 50:
            await asyncio.sleep(0.001)
        first = await anext(stream)
        seen = data["run", "log"]
        assert b'{"run": ["log"]}' in first and seen >= 50
        watching.cancel()
        await stream.aclose()  # type: ignore[attr-defined]
        assert not hub._pages

    asyncio.run(check())


def test_nobody_looks_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_S", 0.001)

    async def check() -> None:
        hub = Hub(lambda: pytest.fail("looked"))
        watching = asyncio.create_task(hub.watch())
        await asyncio.sleep(0.05)
        assert not watching.done()
        watching.cancel()

    asyncio.run(check())


def changes(context: Context, before: Any) -> set[str]:
    now = signatures(context)
    return {name for (run, name) in {*before, *now} if before.get((run, name)) != now.get((run, name))}


def test_each_file_is_told_under_the_resources_that_show_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until="evaluate")
    context = Context.below(tmp_path)
    before = signatures(context)
    assert {name for _, name in before} == {one.NAME for one in RESOURCES} | {""}
    assert changes(context, before) == set()
    with (run / "journeyman.log").open("a") as log:
        log.write("more\n")
    assert changes(context, before) == {"log"}
    before = signatures(context)
    write_metrics(run / "04-adapter" / "metrics.jsonl", 1, start=500)
    assert changes(context, before) == {"curves"}
    before = signatures(context)
    write_progress(run)
    assert changes(context, before) == {"state"}
    before = signatures(context)
    other = write_run(tmp_path.with_name(f"{tmp_path.name}-other") / "run")
    (other / "06-decision").rename(run / "06-decision")
    assert changes(context, before) == {"state", "plan", "answers", "verdict"}
    before = signatures(context)
    write_run(tmp_path / "another", until="ingest")
    context.runs._again = 0.0
    assert "" in changes(context, before)


@pytest.fixture
def hosting(tmp_path: Path) -> Iterator[Hosting]:
    write_run(tmp_path / "run")
    with page(tmp_path, 0) as found:
        thread = threading.Thread(target=found.run)
        thread.start()
        yield found
        found.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_a_server_streams_and_ends_while_pages_listen(hosting: Hosting, tmp_path: Path) -> None:
    address, _, token = hosting.address.partition("/#token=")
    headers = {"authorization": f"Bearer {token}"}
    heard: list[str] = []
    with httpx.Client(base_url=address, headers=headers, timeout=20) as client:
        assert client.get("/api/runs").status_code == 200
        with client.stream("GET", "/api/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                heard.append(line)
                if line == "event: hello":
                    (tmp_path / "run" / "journeyman.log").write_text("new\n")
                if line.startswith("data: ") and "log" in line:
                    began = time.monotonic()
                    hosting.stop()
            assert time.monotonic() - began < 8  # the stream ended, and not because it was cut off
    assert heard[:2] == ["event: hello", "data: {}"]


def test_two_pages_of_one_port(tmp_path: Path) -> None:
    with page(tmp_path, 0) as found:
        port = int(found.address.partition("/#")[0].rpartition(":")[2])
        with pytest.raises(UsageError, match="journeyman ui --port 0"), page(tmp_path, port):
            pass
    with pytest.raises(UsageError, match="no such folder"), page(tmp_path / "none", 0):
        pass


def test_tokens_are_long_and_new_for_each_start(tmp_path: Path) -> None:
    tokens = set()
    for _ in range(3):
        with page(tmp_path, 0) as found:
            tokens.add(found.address.partition("=")[2])
    assert len(tokens) == 3 and all(len(token) >= 43 for token in tokens)


def test_an_odd_folder_does_not_end_the_changes_of_the_others(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", until="ingest")
    odd = write_run(tmp_path / "odd", until="ingest")
    write_progress(odd)
    (odd / ".lock").mkdir()
    context = Context.below(tmp_path)
    before = signatures(context)
    (good / "journeyman.log").write_text("more\n")
    assert changes(context, before) == {"log"}
    before = signatures(context)
    (odd / "02-dataset").mkdir()
    assert changes(context, before) == {"state"}  # what can be read of it is still told


def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(events, "LOOK_S", 0.001)
    data = {("run", "log"): 0}
    failed = 0

    def signatures() -> dict[tuple[str, str], int]:
        nonlocal failed
        if data["run", "log"] == 1 and failed < 3:
            failed += 1
            raise RecursionError("too deep")
        return dict(data)

    async def check() -> None:
        hub = Hub(signatures)
        watching = asyncio.create_task(hub.watch())
        stream = hub.stream()
        await anext(stream)
        data["run", "log"] = 1
        async with asyncio.timeout(10):
            assert b'{"run": ["log"]}' in await anext(stream)
        watching.cancel()
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(check())
    assert failed == 3 and "too deep" in caplog.text


def test_one_run_that_cannot_be_looked_at_costs_no_other_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, _ = (write_run(tmp_path / name, until="ingest") for name in ("good", "odd"))
    look = log.signature

    def signature(context: Context, run: RunFolder) -> Any:
        if run.name == "odd":
            raise RecursionError("too deep")
        return look(context, run)

    monkeypatch.setattr(log, "signature", signature)
    context = Context.below(tmp_path)
    before = signatures(context)
    (good / "journeyman.log").write_text("more\n")
    assert changes(context, before) == {"log"}
