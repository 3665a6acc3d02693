"""Running the server: metrics, the log, limits, the queue, keys, readiness."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conftest import write_tiny_gguf
from fake_engine import ASK, BUNDLE, ROLE, FakeEngine, fake_engine
from faults import wait_until
from journeyman.api.access import FIRST_KEY, config_of, is_loopback, keys_of
from journeyman.api.hosting import open_log
from journeyman.config import ServeConfig
from journeyman.errors import InputError, UsageError
from journeyman.manifests import RolePrompt
from journeyman.serving.app import COUNTED, make_app
from journeyman.serving.errors import RequestError
from journeyman.serving.keyring import FILE, Key, KeyFile, Keys
from journeyman.serving.metrics import Counter, Gauge, Histogram, Metrics
from journeyman.serving.observing import Observer
from journeyman.serving.origin import Door
from journeyman.serving.request_log import RequestLog
from journeyman.serving.turns import Turns
from test_control_tokens import WITH_TOOLS
from test_pipeline import call

CHAT = "/v1/chat/completions"
SELF = "http://127.0.0.1:8011"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS)


@pytest.fixture
def engine(base: Path) -> Iterator[FakeEngine]:
    with fake_engine(base) as made:
        yield made


class Watched:
    """The application with everything in front of it, and the lines of its log."""

    def __init__(self, engine: Any, config: ServeConfig | None = None, keys: Keys | None = None) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.app = make_app(BUNDLE, engine, config=config)
        door = Door(self.app, keys=keys)
        self.client = TestClient(Observer(door, self.app.state.metrics, COUNTED, self.lines.append), base_url=SELF)

    def metrics(self) -> dict[str, float]:
        text = self.client.get("/metrics").text
        return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


@pytest.fixture
def watched(engine: Any) -> Iterator[Watched]:
    made = Watched(engine)
    with made.client:
        yield made


# --- metrics and log ---------------------------------------------------------------------------------


def test_requests_are_counted_by_role_api_and_status(watched: Watched, engine: FakeEngine) -> None:
    client = watched.client
    assert client.post(CHAT, json=ASK).status_code == 200
    assert client.post(CHAT, json={**ASK, "stream": True}).status_code == 200
    messages = {**ASK, "max_tokens": 4}
    assert client.post("/v1/messages", json=messages).status_code == 200
    assert client.post("/v1/messages/count_tokens", json=ASK).status_code == 200
    assert client.post(CHAT, json={**ASK, "model": "poet"}).status_code == 404
    assert client.post(CHAT, json=ASK, headers={"origin": "http://evil.example"}).status_code == 403
    engine.says, engine.cut = ["a", "b", "c"], True
    client.post(CHAT, json={**ASK, "stream": True})
    client.get("/health")
    found = watched.metrics()
    counted = {name: value for name, value in found.items() if name.startswith("journeyman_requests_total")}
    assert counted == {
        'journeyman_requests_total{role="coder",api="chat",status="200"}': 3,
        'journeyman_requests_total{role="coder",api="messages",status="200"}': 1,
        'journeyman_requests_total{role="coder",api="count_tokens",status="200"}': 1,
        'journeyman_requests_total{role="",api="chat",status="404"}': 1,
        'journeyman_requests_total{role="",api="chat",status="403"}': 1,
    }
    assert found['journeyman_streams_broken_total{role="coder",api="chat"}'] == 1
    assert found['journeyman_prompt_tokens_total{role="coder"}'] == 3 * 7
    assert found['journeyman_cached_tokens_total{role="coder"}'] == 3 * 2
    assert found['journeyman_answer_tokens_total{role="coder"}'] == 3 * 3
    assert found['journeyman_first_token_seconds_count{role="coder"}'] == 2, "the streams"
    assert found['journeyman_request_seconds_count{role="coder"}'] == 5
    assert found["journeyman_requests_waiting"] == found["journeyman_requests_active"] == 0
    assert found["journeyman_engine_up"] == 1 and found["journeyman_engine_restarts_total"] == 0


def test_the_log_says_what_happened_and_nothing_of_what_was_said(watched: Watched, engine: FakeEngine) -> None:
    secret = "the launch code is 0000"
    engine.says = ["my answer is ", "SECRET"]
    for stream in (False, True):
        watched.client.post(CHAT, json={**ASK, "messages": [{"role": "user", "content": secret}], "stream": stream})
    watched.client.post(CHAT, json={**ASK, "model": secret})
    whole, stream, refused = watched.lines
    assert whole["api"] == "chat" and whole["role"] == ROLE and whole["status"] == 200 and not whole["stream"]
    assert (whole["prompt_tokens"], whole["cached_tokens"], whole["answer_tokens"]) == (7, 2, 3)
    assert whole["finish_reason"] == stream["finish_reason"] == "stop" and stream["prompt_tokens"] == 7
    assert 0 <= stream["queue_s"] <= stream["first_token_s"] <= stream["duration_s"]
    assert refused["status"] == 404 and refused["role"] == ""
    text = json.dumps(watched.lines)
    assert "launch" not in text and "SECRET" not in text


def test_the_text_for_prometheus() -> None:
    counter = Counter("c_total", "What", ("a", "b"))
    counter.add('x"\\\n', "y")
    counter.add('x"\\\n', "y", by=2.5)
    assert list(counter.lines()) == [
        "# HELP c_total What", "# TYPE c_total counter", 'c_total{a="x\\"\\\\\\n",b="y"} 3.5',
    ]  # fmt: skip
    histogram = Histogram("h_seconds", "What", ("a",))
    for seconds in (0.004, 0.005, 0.2, 1000):
        histogram.add(seconds, "r")
    lines = list(histogram.lines())
    assert 'h_seconds_bucket{a="r",le="0.005"} 2' in lines and 'h_seconds_bucket{a="r",le="0.25"} 3' in lines
    assert 'h_seconds_bucket{a="r",le="300"} 3' in lines and 'h_seconds_bucket{a="r",le="+Inf"} 4' in lines
    assert 'h_seconds_count{a="r"} 4' in lines
    assert list(Gauge("g", "What", 2).lines()) == ["# HELP g What", "# TYPE g gauge", "g 2"]
    assert Metrics().text().endswith("\n")


@pytest.mark.parametrize("stream", [False, True])
def test_contents_are_logged_only_if_asked_for_and_redacted(engine: FakeEngine, stream: bool) -> None:
    """The engine repeats a placeholder, which the client gets as the value, and says an address of its own."""
    watched = Watched(engine, ServeConfig(log_contents=True))
    turns = [{"role": "user", "content": "Write to ann@acme.com, password=hunter2xyz99Q"}]
    with watched.client as client:
        assert client.post(CHAT, json={**ASK, "messages": turns}).status_code == 200
        address, password = re.findall(r"<\w+>", engine.asked[-1]["messages"][-1]["content"])
        engine.says = ["to ", address[:4], address[4:], f", bob@acme.com, {password}"]
        engine.calls = [("c1", "send", [f'{{"to": "{address}"', "}"])]
        answer = client.post(CHAT, json={**ASK, "messages": turns, "n": 2, "stream": stream})
        assert answer.status_code == 200 and "ann@" in answer.text
        assert client.post("/v1/messages/count_tokens", json=ASK).status_code == 200
    line = watched.lines[1]
    assert line["messages"] == engine.asked[-1]["messages"] and len(line["answers"]) == 2
    for one in line["answers"]:
        assert one["text"].startswith(f"to {address}") and one["text"].endswith(password)
        assert one["tool_calls"] == [{"name": "send", "arguments": f'{{"to": "{address}"}}'}]
    assert not re.search("ann@|bob@|hunter2", json.dumps(watched.lines))
    assert watched.lines[2]["messages"] and watched.lines[2]["answers"] == []


def test_a_broken_stream_is_logged_with_a_code(watched: Watched, engine: FakeEngine) -> None:
    """The engine's error, which quotes the request, is for the client only."""
    engine.breaks = "cannot parse: the launch code is 0000"
    answer = watched.client.post(CHAT, json={**ASK, "stream": True})
    assert answer.status_code == 200 and "launch code" in answer.text
    engine.breaks, engine.cut = "", True
    watched.client.post(CHAT, json={**ASK, "stream": True})
    assert [line["broken"] for line in watched.lines] == ["engine_error", "engine_ended"]


def test_a_log_that_cannot_be_written_loses_lines_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    with open_log("requests.jsonl", tmp_path, told.append) as log:
        assert log is not None
        log({"a": 1})
    assert (tmp_path / "requests.jsonl").read_text() == '{"a": 1}\n'
    with open_log("-", tmp_path, told.append) as log:
        assert log is not None
        log({"a": "\x1b\x7f"})
    assert capfd.readouterr() == ('{"a": "\\u001b\\u007f"}\n', "") and not told
    with pytest.raises(UsageError, match=r"serve\.log"), open_log("no/such/folder", tmp_path, told.append):
        pass
    if Path("/dev/full").exists():
        full = RequestLog(Path("/dev/full"), told.append)
        for _ in range(3):
            full({"a": 1})
        full.close()
        assert full.lost == 3 and len(told) == 1 and "No space left" in told[0]


# --- prompts that differ from those of the training --------------------------------------------------

FRAMED = BUNDLE.model_copy(update={
    "system_prompts": {},
    "prompts": {ROLE: RolePrompt(kind="templated", text="", begins="Customer ", ends=" Be kind.", rows=9, distinct=9)},
})  # fmt: skip
OTHER = {"role": "system", "content": "You are a pirate."}


@pytest.mark.parametrize(
    ("policy", "bundle", "difference", "served"),
    [
        ("replace", BUNDLE, "system_prompt", "You are a coder."), ("replace", FRAMED, "frame", None),
        ("warn", BUNDLE, "system_prompt", "You are a coder."), ("warn", FRAMED, "frame", "You are a pirate."),
        ("refuse", BUNDLE, "system_prompt", None), ("refuse", FRAMED, "frame", None),
    ],
)  # fmt: skip
def test_prompts_that_differ_are_shown_counted_or_refused(
    engine: FakeEngine, policy: Any, bundle: Any, difference: str, served: str | None
) -> None:
    told: list[str] = []
    app = make_app(bundle, engine, config=ServeConfig(prompts=policy), say=told.append)  # type: ignore[arg-type]
    with TestClient(Observer(Door(app), app.state.metrics, COUNTED), base_url=SELF) as client:
        for _ in range(2):
            answer = client.post(CHAT, json={**ASK, "messages": [OTHER, *ASK["messages"]]})  # type: ignore[misc]
        counted = f'journeyman_prompt_differences_total{{role="coder",difference="{difference}"}} 2'
        assert counted in client.get("/metrics").text
        assert told == [f"coder: prompts that differ from those of the training ({difference}): 1"]
        if served is None:
            assert answer.status_code == 400 and answer.json()["error"]["code"] == "prompt_differs" and not engine.asked
            return
        assert answer.status_code == 200 and answer.headers["journeyman-prompt-differs"] == difference
        assert engine.asked[-1]["messages"][0]["content"] == served
        right = "Customer Ann. Be kind." if difference == "frame" else "You are a coder."
        same = client.post(CHAT, json={**ASK, "messages": [{"role": "system", "content": right}, *ASK["messages"]]})  # type: ignore[misc]
        assert same.status_code == 200 and "journeyman-prompt-differs" not in same.headers


# --- limits ------------------------------------------------------------------------------------------


def test_the_queue_is_in_order_limited_and_gives_back_what_was_left() -> None:
    async def scene() -> None:
        turns = Turns(slots=1, most_waiting=2, wait_s=30)
        order: list[int] = []
        done = asyncio.Event()

        async def ask(number: int) -> None:
            async with turns.turn(ROLE):
                order.append(number)
                await done.wait()

        asked = [asyncio.create_task(ask(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert (turns.active, turns.waiting) == (2, 2), "one in the engine's slot, and one that is ready for it"
        with pytest.raises(RequestError) as told:
            await ask(4)
        assert told.value.status == 429 and int((told.value.headers or {})["retry-after"]) >= 1
        asked[2].cancel()  # a client that leaves while it waits
        await asyncio.gather(asked[2], return_exceptions=True)
        assert turns.waiting == 1
        last = asyncio.create_task(ask(5))
        await asyncio.sleep(0)
        assert turns.waiting == 2
        done.set()
        await asyncio.gather(*asked, last, return_exceptions=True)
        assert order == [0, 1, 3, 5] and (turns.active, turns.waiting) == (0, 0)

    asyncio.run(scene())


def test_requests_for_a_role_that_is_answered_overtake_others_a_limited_number_of_times() -> None:
    async def scene(arrived: str) -> str:
        turns = Turns(slots=1, most_waiting=99, wait_s=30)
        order, gates = list[str](), [asyncio.Event() for _ in arrived]

        async def ask(role: str, gate: asyncio.Event) -> None:
            async with turns.turn(role):
                order.append(role)
                await gate.wait()

        asked = []
        for role, gate in zip(arrived, gates, strict=True):
            asked.append(asyncio.create_task(ask(role, gate)))
            await asyncio.sleep(0)
        for gate in gates:
            gate.set()
            for _ in range(5):
                await asyncio.sleep(0)
        await asyncio.gather(*asked)
        assert turns.active == turns.waiting == 0
        return "".join(order)

    assert asyncio.run(scene("aabab")) == "aaabb", "the third of a overtakes the first of b"
    assert asyncio.run(scene("aabaaaa")) == "aaaabaa", "b is overtaken by two, as many as have a turn at a time"
    assert asyncio.run(scene("abababab"))[:2] == "ab"


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_client_that_leaves_in_the_moment_of_its_turn_gives_it_back(leaves_first: bool) -> None:
    async def scene() -> None:
        turns = Turns(slots=1, most_waiting=9, wait_s=30)

        async def ask() -> None:
            async with turns.turn(ROLE):
                await asyncio.sleep(9)

        async with turns.turn(ROLE) as first, turns.turn(ROLE):
            leaving = asyncio.create_task(ask())
            await asyncio.sleep(0)
            assert turns.waiting == 1
            for step in (leaving.cancel, first.release) if leaves_first else (first.release, leaving.cancel):
                step()
            await asyncio.gather(leaving, return_exceptions=True)
            assert (turns.active, turns.waiting) == (1, 0)
        assert turns.active == 0

    asyncio.run(scene())


def test_a_turn_that_never_comes_is_a_503_and_a_released_one_comes_once() -> None:
    async def scene() -> None:
        turns = Turns(slots=1, most_waiting=9, wait_s=0.01)
        async with turns.turn(ROLE) as first, turns.turn(ROLE):
            with pytest.raises(RequestError) as told:
                async with turns.turn(ROLE):
                    pass
            assert told.value.status == 503 and told.value.headers
            first.release()  # its reader is stalled, the engine is not
            first.release()
            async with turns.turn(ROLE):
                with pytest.raises(RequestError):
                    async with turns.turn(ROLE):
                        pass
        assert (turns.active, turns.waiting) == (0, 0)

    asyncio.run(scene())


def test_a_refusal_counts_the_requests_that_are_being_read() -> None:
    turns = Turns(slots=1, most_waiting=0, wait_s=30)
    with turns.arrival(), turns.arrival(), pytest.raises(RequestError) as told, turns.arrival():
        pass
    assert told.value.status == 429 and "2 are being read" in told.value.message and "at most 2" in told.value.message


def test_the_answers_of_a_request_have_their_places_together_or_none() -> None:
    async def scene() -> None:
        turns = Turns(slots=1, most_waiting=2, wait_s=30)
        with pytest.raises(RequestError) as never, turns.places(5):
            pass
        assert never.value.status == 400
        with turns.places(3) as places:
            with pytest.raises(RequestError) as full, turns.places(2):
                pass
            assert full.value.status == 429 and turns.reserved == 3
            async with turns.turn(ROLE, places), turns.turn(ROLE):
                with pytest.raises(RequestError):
                    async with turns.turn(ROLE):
                        pass
                with pytest.raises(RequestError), turns.arrival():
                    pass
                second = turns.turn(ROLE, places)
                waiting = asyncio.create_task(second.__aenter__())
                await asyncio.sleep(0)
                assert (turns.active, turns.waiting, turns.reserved) == (2, 1, 1)
            (await waiting).release()
            assert (turns.active, turns.waiting, turns.reserved) == (0, 0, 1)
        assert (turns.active, turns.waiting, turns.reserved) == (0, 0, 0)

    asyncio.run(scene())


def test_a_stream_of_several_answers_keeps_the_places_of_those_that_have_not_begun(engine: FakeEngine) -> None:
    watched = Watched(engine, ServeConfig(queue=0))
    engine.gate.clear()
    with watched.client as client, ThreadPoolExecutor() as pool:
        turns: Turns = watched.app.state.answering.turns
        asked = pool.submit(client.post, CHAT, json={**ASK, "n": 2, "stream": True})
        wait_until(lambda: turns.active == 1)
        assert turns.reserved == 1
        other = pool.submit(client.post, CHAT, json=ASK)
        wait_until(lambda: other.done() or turns.active == 2)
        engine.gate.set()
        assert other.result().status_code == 429
        text = asked.result().text
        assert "error" not in text and text.endswith("data: [DONE]\n\n") and len(engine.asked) == 2
        assert (turns.active, turns.waiting, turns.reserved) == (0, 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_places_are_given_back_if_the_request_fails(engine: FakeEngine, stream: bool) -> None:
    watched = Watched(engine, ServeConfig(queue=0))
    engine.fails = (500, "out of memory")
    with watched.client as client:
        turns: Turns = watched.app.state.answering.turns
        assert client.post(CHAT, json={**ASK, "n": 2, "stream": stream}).status_code == 502
        assert (turns.active, turns.waiting, turns.reserved) == (0, 0, 0)
        engine.fails = None
        assert client.post(CHAT, json={**ASK, "n": 2, "stream": stream}).status_code == 200


def test_a_full_queue_is_a_429_in_every_api(engine: FakeEngine) -> None:
    watched = Watched(engine, ServeConfig(queue=1))
    bodies: dict[str, Any] = {
        CHAT: ASK, "/v1/completions": {"model": ROLE, "prompt": "x"}, "/v1/responses": {"model": ROLE, "input": "x"},
        "/v1/messages": {**ASK, "max_tokens": 4},
    }  # fmt: skip
    engine.gate.clear()
    with watched.client as client, ThreadPoolExecutor() as pool:
        turns: Turns = watched.app.state.answering.turns
        asked = [pool.submit(client.post, CHAT, json=ASK) for _ in range(2)]
        wait_until(lambda: turns.active == 2)
        copies = client.post(CHAT, json={**ASK, "n": 2, "stream": True})
        assert copies.status_code == 429, "one more has room, two have not"
        asked.append(pool.submit(client.post, CHAT, json=ASK))
        wait_until(lambda: turns.waiting == 1)
        for path, body in bodies.items():
            for sent in (json.dumps(body), "no JSON: it is not read"):
                answer = client.post(path, content=sent, headers={"content-type": "application/json"})
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
                assert answer.json()["error"]["type"] == "rate_limit_error"
        engine.gate.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert client.post(CHAT, json=ASK).status_code == 200
        assert (turns.arriving, turns.active, turns.waiting) == (0, 0, 0)


def post_of(app: Any) -> dict[str, Any]:
    """The ASGI scope of a request to the chat completions of an application."""
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "query_string": b"", "app": app}


def test_bodies_that_are_being_read_have_a_place_in_the_queue(engine: Any) -> None:
    """Two have begun to arrive, so the third is refused before any of it is read."""

    async def scene() -> None:
        app, answers = make_app(BUNDLE, engine, config=ServeConfig(queue=0)), []

        async def never() -> Any:
            await asyncio.Event().wait()

        async def unread() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            answers.append(message)

        scope = post_of(app)
        async with app.router.lifespan_context(app):
            arriving = [asyncio.create_task(app(dict(scope), never, send)) for _ in range(2)]
            while app.state.answering.turns.arriving < 2:
                await asyncio.sleep(0)
            await app(dict(scope), unread, send)
            assert answers[0]["status"] == 429 and app.state.answering.turns.arriving == 2
            for one in arriving:
                one.cancel()
            await asyncio.gather(*arriving, return_exceptions=True)
            assert app.state.answering.turns.arriving == 0

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_more_copies_than_there_can_ever_be_are_a_400(engine: Any) -> None:
    watched = Watched(engine, ServeConfig(queue=0))
    with watched.client as client:
        assert client.post(CHAT, json={**ASK, "n": 2}).status_code == 200
        for stream in (False, True):
            answer = client.post(CHAT, json={**ASK, "n": 3, "stream": stream})
            error = answer.json()["error"]
            assert answer.status_code == 400 and error["param"] == "n"
            assert "n is 3" in error["message"] and "at most 2" in error["message"]


def test_counts_of_tokens_have_turns_of_their_own(engine: FakeEngine) -> None:
    watched = Watched(engine, ServeConfig(queue=0))
    path = "/v1/messages/count_tokens"
    engine.gate.clear()
    with watched.client as client, ThreadPoolExecutor() as pool:
        turns: Turns = watched.app.state.answering.counts
        asked = [pool.submit(client.post, path, json=ASK) for _ in range(2)]
        wait_until(lambda: turns.active == 2)
        assert client.post(path, json=ASK).status_code == 429
        assert watched.app.state.answering.turns.active == 0
        engine.gate.set()
        assert [one.result().status_code for one in asked] == [200] * 2
        assert turns.active == 0


def test_streams_of_several_answers_do_not_wait_for_each_other(engine: FakeEngine) -> None:
    """Each of five clients has one of five turns and wants a second one."""
    engine.settings = replace(engine.settings, parallel=4)
    watched = Watched(engine, ServeConfig(queue_s=20))
    engine.gate.clear()
    with watched.client as client, ThreadPoolExecutor() as pool:
        turns: Turns = watched.app.state.answering.turns
        asked = [pool.submit(client.post, CHAT, json={**ASK, "n": 2, "stream": True}) for _ in range(5)]
        wait_until(lambda: turns.active == 5)
        engine.gate.set()
        for one in asked:
            events = [json.loads(line[6:]) for line in one.result().text.splitlines() if line.startswith("data: {")]
            ended = [choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"]]
            assert sorted(ended) == [0, 1] and one.result().text.endswith("data: [DONE]\n\n")
        assert (turns.active, turns.waiting) == (0, 0)


def test_a_body_over_the_configured_limit_is_a_413(engine: Any) -> None:
    watched = Watched(engine, ServeConfig(max_body_mib=1))
    with watched.client as client:
        headers = {"content-type": "application/json"}
        assert client.post(CHAT, content=b" " * (1 << 20) + b"x", headers=headers).status_code == 413
        answer = client.post("/v1/messages", content=b" " * (1 << 20) + b"x", headers=headers)
        assert answer.json()["error"]["type"] == "request_too_large"


def test_a_body_that_does_not_arrive_is_a_408(engine: Any) -> None:
    async def scene() -> list[dict[str, Any]]:
        app, sent = make_app(BUNDLE, engine, config=ServeConfig(body_s=0.05)), []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(30)
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        scope = post_of(app)
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
        return sent

    start, body = asyncio.run(scene())
    assert start["status"] == 408 and b"to arrive" in body["body"]


def test_an_answer_that_takes_too_long_ends_in_an_error(base: Path) -> None:
    """The engine sends a chunk and then nothing more."""
    import socket

    hanging = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not hanging.is_set():
            connection, _ = listener.accept()
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            if held:  # the second request is the one for a stream
                event = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
                connection.sendall(f"{head}{len(event):x}\r\n{event}\r\n".encode())
            held.append(connection)

    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        engine: Any = FakeEngine(base, f"http://127.0.0.1:{listener.getsockname()[1]}")
        watched = Watched(engine, ServeConfig(answer_s=0.2))
        with watched.client as client:
            whole = client.post(CHAT, json=ASK)
            assert whole.status_code == 504 and "answer_s" in whole.json()["error"]["message"]
            stream = client.post(CHAT, json={**ASK, "stream": True})
            assert stream.status_code == 200 and "answer_s" in stream.text and "[DONE]" not in stream.text
            assert watched.app.state.answering.turns.active == 0
            assert watched.lines[-1]["broken"]
        hanging.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
    for one in held:
        one.close()


# --- keys --------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journeyman.toml").touch()
    assert call("keys", "add", "ci", "--dir", tmp_path) == 0
    secret = capsys.readouterr().out.strip()
    assert len(secret) > 40
    assert call("keys", "add", "ci", "--dir", tmp_path) == 2 and "already" in capsys.readouterr().err
    assert call("keys", "add", "a b", "--dir", tmp_path) == 2
    assert call("keys", "add", "desk", "--dir", tmp_path) == 0
    capsys.readouterr()
    assert call("keys", "list", "--dir", tmp_path) == 0
    listed = capsys.readouterr().out
    assert "ci" in listed and "desk" in listed and secret not in listed
    text = (tmp_path / FILE).read_text()
    assert secret not in text and secret.removeprefix("jm-") not in text
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert call("keys", "list", "--json", "--dir", tmp_path) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["ci", "desk"]
    assert call("keys", "revoke", "ci", "--dir", tmp_path) == 0
    assert call("keys", "revoke", "ci", "--dir", tmp_path) == 2
    assert [key.name for key in KeyFile(tmp_path / FILE).listed()] == ["desk"]


def test_a_key_opens_the_port_until_it_is_revoked(engine: Any, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / FILE)
    ci, desk = file.add("ci"), file.add("desk")
    watched = Watched(engine, keys=Keys("e" * 20, KeyFile(tmp_path / FILE)))
    with watched.client as client:

        def status(secret: str) -> int:
            return int(client.post(CHAT, json=ASK, headers={"authorization": f"Bearer {secret}"}).status_code)

        assert (status(ci), status(desk), status("e" * 20), status("no"), status("")) == (200, 200, 200, 401, 401)
        assert [line.get("key") for line in watched.lines] == ["ci", "desk", "env", None, None]
        assert client.get("/metrics").status_code == 401 and client.get("/ready").status_code == 200
        file.revoke("ci")
        assert (status(ci), status(desk)) == (401, 200)
        file.revoke("desk")
        assert status(desk) == 401, "no key is left, and the port does not open"
        (tmp_path / FILE).write_text("{")
        assert (status(desk), status("e" * 20)) == (401, 200), "a damaged file opens nothing"


def test_the_last_revoked_key_does_not_open_the_port(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / FILE)
    assert not Keys(None, file).required
    file.add("ci")
    file.revoke("ci")
    assert Keys(None, KeyFile(tmp_path / FILE)).required


def test_the_first_key_closes_a_running_port_for_good(engine: Any, tmp_path: Path) -> None:
    watched = Watched(engine, keys=Keys(None, KeyFile(tmp_path / FILE), own="o" * 20))
    with watched.client as client:

        def status(secret: str = "") -> int:
            return int(client.post(CHAT, json=ASK, headers={"x-api-key": secret}).status_code)

        assert status() == 200
        ci = KeyFile(tmp_path / FILE).add("ci")
        assert (status(), status(ci), status("o" * 20)) == (401, 200, 200)
        (tmp_path / FILE).unlink()
        assert (status(), status(ci)) == (401, 401), "without its file, a port that was closed stays closed"


def test_a_key_that_is_revoked_while_another_is_added_stays_revoked(tmp_path: Path) -> None:
    """The two processes take turns: each reads what the other has written."""
    file = KeyFile(tmp_path / FILE)
    old = file.add("old")
    write, others = file._write, []

    def interrupted(keys: Sequence[Key]) -> None:
        others.append(threading.Thread(target=KeyFile(tmp_path / FILE).revoke, args=("old",)))
        others[0].start()
        others[0].join(0.2)  # it has no lock to wait for: it ends, and its change is lost
        write(keys)

    file._write = interrupted  # type: ignore[method-assign]
    new = file.add("new")
    others[0].join()
    assert [key.name for key in KeyFile(tmp_path / FILE).listed()] == ["new"]
    assert KeyFile(tmp_path / FILE).match(old) is None and KeyFile(tmp_path / FILE).match(new) == "new"


def test_keys_belong_to_the_folder_from_which_serve_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    releases, run = tmp_path / "releases", tmp_path / "run"
    (run / "07-bundle").mkdir(parents=True)
    releases.mkdir()
    for command in (("add", "ci"), ("list",), ("revoke", "ci")):
        assert call("keys", *command, "--dir", releases) == 2
        assert "has no journeyman.toml, so serve does not use its keys" in capsys.readouterr().err
    assert list(releases.iterdir()) == []
    (run / "journeyman.toml").write_text("[serve]\nport = 0\nhost = '::1'\n")
    assert call("keys", "add", "ci", "--dir", run / "07-bundle") == 0 and (run / FILE).exists()
    told: list[str] = []
    assert config_of(run, releases, told.append).host == "::1"
    assert config_of(run / "07-bundle", None, told.append).host == "::1" and not told
    with pytest.raises(UsageError, match=r"whose \[serve\] settings and keys apply"):
        config_of(tmp_path, releases, told.append)
    assert config_of(tmp_path, None, told.append).host == "127.0.0.1" and "are the defaults" in told[0]
    KeyFile(releases / FILE).add("old")
    assert call("keys", "revoke", "old", "--dir", releases) == 0, "keys of older versions can be removed"


def test_a_port_that_others_reach_gets_a_key(tmp_path: Path) -> None:
    told: list[str] = []
    assert not keys_of(tmp_path, None, "127.0.0.1", told.append).required and not told
    keys = keys_of(tmp_path, None, "0.0.0.0", told.append)
    assert keys.required and keys.match(told[1]) == FIRST_KEY and "TLS" in told[2]
    told.clear()
    assert keys_of(tmp_path, None, "0.0.0.0", told.append).required and len(told) == 1, "it is told once"
    assert keys_of(tmp_path / "none", "k" * 16, "::", told.append).required
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "10.0.0.1", "me.lan")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(InputError, match="not a file of keys"):
        keys_of(tmp_path, None, "127.0.0.1", told.append)


def test_an_address_that_was_connected_to_is_a_name_of_the_server(engine: Any) -> None:
    app = Door(make_app(BUNDLE, engine))
    with TestClient(app, base_url="http://10.1.2.3:8011") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "10.1.2.4:8011"}).status_code == 403
    with TestClient(app, base_url="http://evil.example:8011") as client:
        assert client.get("/health").status_code == 403, "a name of somebody else"
