"""The engine behind the server: crashes are detected, waiting clients are released, shutdown is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_tiny_gguf
from journeyman.config import EMBEDDED, ServeConfig
from journeyman.errors import EngineError
from journeyman.inference.chat import events_of
from journeyman.inference.engines import running_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.models.opening import find_base
from journeyman.protocols import EngineSettings
from journeyman.redaction.redactor import Conversation, Redactor
from journeyman.serving import engine as kept_module
from journeyman.serving.dialects.chat import ChatWriter
from journeyman.serving.engine import kept_engine
from journeyman.serving.observing import Record
from journeyman.serving.preparing import engine_request
from journeyman.serving.redacting import restored_answer
from journeyman.serving.requests import Asked
from journeyman.serving.server import SHUTDOWN_S
from journeyman.serving.stream import restored_events, served_stream
from journeyman.serving.upstream import Lost
from journeyman.serving.writing import PatientWriter
from served import CONTEXT, tiny_bundle

pytestmark = pytest.mark.slow  # each starts a server

ASK = {"model": "coder", "messages": [{"role": "user", "content": "Task: x"}], "max_tokens": 4}
ENDLESS = {**ASK, "max_tokens": 30_000}  # minutes
SOON_S = 30
"""Far more than it takes (0.1 s), and far less than the engine would need for the answer."""


@pytest.fixture(scope="module")
def long_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("long") / "long.gguf", context=CONTEXT)


class Served:
    """A server in a separate process."""

    def __init__(self, base: Path) -> None:
        script = Path(__file__).parents[1] / "helpers" / "served.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(base)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout and self.process.stderr
        self.port, first = (int(word) for word in self.process.stdout.readline().split())
        self.first_engine = psutil.Process(first)
        self.said: list[str] = []
        self._listening = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)  # type: ignore[arg-type]
        self._listening.start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=120)
        self.wait_for_health(200)

    def wait_for_health(self, code: int) -> httpx.Response:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if (answer := self.http.get("/ready")).status_code == code:
                    return answer
            time.sleep(0.05)
        pytest.fail(f"health never was {code}: {self.said}")

    def engine(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def ask(self, body: dict[str, Any] = ASK) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=body)

    def send(
        self, body: dict[str, Any], read_buffer: int | None = None, path: str = "/v1/chat/completions"
    ) -> socket.socket:
        """Sends a request on a new connection without reading the answer."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        made = socket.socket()
        if read_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        made.connect(("127.0.0.1", self.port))
        made.sendall(head.encode() + data)
        return made

    def seconds_to_end(self, *signals: int) -> float:
        start = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(1)
        self.process.wait(timeout=60)
        return time.monotonic() - start

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        self._listening.join(timeout=5)
        assert self.process.stdout and self.process.stderr
        self.process.stdout.close()
        self.process.stderr.close()


def gone(process: psutil.Process) -> bool:
    """Whether the process ends within seconds. A zombie whose parent has died is only waiting for init."""
    for _ in range(200):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def served(long_gguf: Path) -> Iterator[Served]:
    made = Served(long_gguf)
    yield made
    made.close()


@pytest.fixture
def own(long_gguf: Path) -> Iterator[Served]:
    """A server that the test may stop."""
    made = Served(long_gguf)
    yield made
    made.close()


# --- an engine that ends ---------------------------------------------------------------------------


def test_an_engine_killed_under_load_fails_its_requests_and_the_others_wait_for_the_next(served: Served) -> None:
    answers: dict[int, httpx.Response] = {}

    def ask(number: int) -> None:
        body = ENDLESS if number < 2 else ASK  # the engine has one slot, and one more request is ahead
        answers[number] = served.ask({**body, "stream": number % 2 == 0})

    waiting = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for place, one in enumerate(waiting):
        one.start()
        time.sleep(0.5 if place == 1 else 0)
    time.sleep(1)
    dead = served.engine()
    dead.kill()
    assert gone(dead)
    for one in waiting:
        one.join(timeout=60)
    assert len(answers) == len(waiting), "every request has ended"
    for number, answer in answers.items():
        if number >= 2:
            assert answer.status_code == 200 and "error" not in answer.text
            continue
        if answer.status_code == 200:  # a stream that had begun
            *_, last = events_of(iter([answer.content]))
            assert "[DONE]" not in answer.text
        else:
            assert answer.status_code in (502, 503)
            last = answer.json()
        assert last["error"]["type"] == "server_error" and "engine" in last["error"]["message"]
    served.wait_for_health(200)
    assert served.ask().status_code == 200
    assert served.engine().pid != dead.pid, "the only child: no zombie is left"
    assert any("ended by signal 9" in line for line in served.said)
    assert "journeyman_engine_restarts_total 1" in served.http.get("/metrics").text


def test_the_embedded_models_engine_answers_again_after_a_kill() -> None:
    served = Served(find_base(EMBEDDED, Path()))
    try:
        assert served.ask().status_code == 200
        served.engine().kill()
        assert served.ask().status_code in (200, 502, 503), "it waits, or its engine has just ended"
        served.wait_for_health(200)
        assert served.ask().status_code == 200
    finally:
        served.close()


def test_health_and_requests_say_that_there_is_no_engine(long_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    from journeyman.serving.app import identity_of, make_app

    monkeypatch.setattr(kept_module, "_WAITS_S", (60.0,))
    with (
        running_engine(EngineSettings(long_gguf, {}, 512, 1, 0.0)) as engine,
        TestClient(make_app(tiny_bundle(), engine, config=ServeConfig(restart_s=0.1))) as client,
    ):
        assert client.get("/ready").json() == {"status": "ok", "bundle": identity_of(tiny_bundle())}
        engine.kill()
        engine._process.wait()
        assert client.get("/ready").status_code == 503
        assert client.get("/health").json() == {"status": "ok"}, "the process itself is alive"
        assert "journeyman_engine_up 0" in client.get("/metrics").text
        answer = client.post("/v1/chat/completions", json=ASK)
        assert answer.status_code == 503 and "restarted" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("why", [EngineError("no", "never"), ValueError("no")])
def test_an_engine_that_cannot_be_started_is_given_up(
    long_gguf: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    tries = []

    def fails(settings: EngineSettings) -> LlamaEngine:
        tries.append(settings)
        raise why

    async def give_up(engine: LlamaEngine) -> str:
        done = asyncio.Event()
        async with kept_engine(engine, said.append, done.set) as kept:
            monkeypatch.setattr(kept_module, "start_engine", fails)
            engine.kill()
            await asyncio.wait_for(done.wait(), 30)
            assert kept.ready() is None
            return kept.why_not()

    said: list[str] = []
    monkeypatch.setattr(kept_module, "_WAITS_S", (0.0, 0.01, 0.02))
    with running_engine(EngineSettings(long_gguf, {}, 512, 1, 0.0)) as engine:
        assert "not restarted" in asyncio.run(give_up(engine))
    assert len(tries) == 3 and "3 restarts failed" in said[-1]


def test_no_engine_outlives_a_server_that_was_killed(own: Served) -> None:
    engine = own.engine()
    own.process.kill()
    own.process.wait()
    assert gone(engine)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "journeyman.inference.engine"], stdout=subprocess.PIPE)
print(child.pid, flush=True)
print(child.stdout.readline(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's")
@pytest.mark.parametrize("loading", [True, False])
def test_no_engine_outlives_a_parent_whose_pipe_another_process_holds(long_gguf: Path, loading: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    job = {"base": str(long_gguf), "adapters": [], "context": 512, "parallel": 1, "threads": 1, "key": "k"}
    job["parent"] = parent.pid
    assert parent.stdin and parent.stdout
    engine = psutil.Process(int(parent.stdout.readline()))
    parent.stdin.write(json.dumps(job).encode() + b"\n")
    parent.stdin.flush()
    if not loading:
        assert parent.stdout.readline().strip() != b"b''"
    parent.kill()
    parent.wait()
    assert gone(engine), "its standard input is still open here"
    parent.stdin.close()
    parent.stdout.close()


def test_the_engines_threads_do_not_spin_during_other_work(long_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    with running_engine(EngineSettings(long_gguf, {}, 512, 1, 0.0)) as engine:
        assert int(psutil.Process(engine._process.pid).environ()["GOMP_SPINCOUNT"]) <= 2_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    with running_engine(EngineSettings(long_gguf, {}, 512, 1, 0.0)) as engine:
        assert psutil.Process(engine._process.pid).environ()["GOMP_SPINCOUNT"] == "7", "who sets it is obeyed"


# --- clients that disconnect or stop reading ---------------------------------------------------------


APIS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ENDLESS,
    "/v1/completions": {"model": "coder", "prompt": "Task: x", "max_tokens": 30_000},
    "/v1/responses": {"model": "coder", "input": "Task: x", "max_output_tokens": 30_000},
    "/v1/messages": ENDLESS,
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", APIS)
def test_clients_that_leave_free_the_engine(served: Served, path: str, streamed: bool) -> None:
    body = {**APIS[path], "stream": streamed}
    served.send(body, path=path).close()
    left = [served.send(body, path=path) for _ in range(4)]  # one decodes, one is in the engine's queue, two in ours
    time.sleep(0.5)
    left[2].close()  # first one that waits
    time.sleep(0.2)
    for one in left:
        one.close()
    start = time.monotonic()
    assert served.ask().status_code == 200
    assert time.monotonic() - start < SOON_S
    page = served.http.get("/metrics").text
    assert "journeyman_requests_waiting 0" in page and "journeyman_requests_active 0" in page
    api = {"/v1/chat/completions": "chat"}.get(path, path.removeprefix("/v1/"))
    assert f'api="{api}",status="499"}}' in page


def test_an_engine_killed_during_answers_is_an_error_in_every_api(served: Served) -> None:
    for paths in (("/v1/messages", "/v1/responses"), ("/v1/completions", "/v1/messages")):
        answers: dict[str, str] = {}

        def ask(path: str, answers: dict[str, str] = answers) -> None:
            answers[path] = served.http.post(path, json={**APIS[path], "stream": True}).text

        asking = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for one in asking:
            one.start()
        time.sleep(1)
        engine = served.engine()
        engine.kill()
        for one in asking:
            one.join(timeout=60)
        assert gone(engine) and answers.keys() == set(paths)
        for path, text in answers.items():
            assert "the engine" in text, text[-300:]
            for end in ("[DONE]", "message_stop", "response.completed"):
                assert end not in text, path
        served.wait_for_health(200)
        assert served.ask().status_code == 200


def test_stalled_readers_delay_nobody(served: Served) -> None:
    long = {**ASK, "max_tokens": 2_000, "logprobs": True, "top_logprobs": 20}
    stalled = [served.send({**long, "stream": streamed}, read_buffer=4096) for streamed in (True, True, False)]
    time.sleep(1)
    start = time.monotonic()
    assert served.ask().status_code == 200
    assert time.monotonic() - start < 2 * SOON_S
    for one in stalled:
        one.close()


def test_a_stalled_reader_is_disconnected() -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(300_000), "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(PatientWriter(app, timeout_s=0.05)({"type": "http"}, receive, send), 10))
    assert [len(m.get("body", b"")) for m in sent[1:]] == [65_536] * 3, "pieces, and none after the one not taken"
    sent.clear()

    async def takes(message: Any) -> None:
        sent.append(message)

    asyncio.run(PatientWriter(app)({"type": "http"}, receive, takes))
    assert sum(len(m.get("body", b"")) for m in sent) == 300_000
    assert [m["more_body"] for m in sent[1:]] == [True] * 4 + [False]


def test_a_hostile_text_blocks_nobody_else(served: Served) -> None:
    long = threading.Thread(
        target=served.ask, args=({**ASK, "messages": [{"role": "user", "content": "sk-" * 300_000}]},)
    )
    long.start()
    slowest = 0.0
    while long.is_alive():
        start = time.monotonic()
        assert served.http.get("/health").status_code == 200
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 10, "it took minutes"


# --- shutdown --------------------------------------------------------------------------------------


def test_the_server_shuts_down_in_time_whatever_clients_do(own: Served) -> None:
    half = socket.create_connection(("127.0.0.1", own.port))
    half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{")
    headless = socket.create_connection(("127.0.0.1", own.port))
    headless.sendall(b"POST /v1/chat")
    stalled = own.send({**ENDLESS, "stream": True, "logprobs": True, "top_logprobs": 20}, read_buffer=4096)
    running: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: running.append(own.ask(ENDLESS)))
    asking.start()
    time.sleep(2)
    engine = own.engine()
    assert own.seconds_to_end(signal.SIGTERM) < SHUTDOWN_S + 5
    assert gone(engine)
    asking.join(timeout=10)
    assert running[0].status_code == 502 and "shutting down" in running[0].json()["error"]["message"]
    for one in (half, headless, stalled):
        one.close()
    assert not any("Traceback" in line for line in own.said), own.said


def test_a_second_signal_ends_it_at_once(own: Served) -> None:
    stalled = own.send({**ENDLESS, "stream": True})
    assert stalled.recv(1), "it streams"
    engine = own.engine()
    assert own.seconds_to_end(signal.SIGTERM, signal.SIGTERM) < SHUTDOWN_S
    assert own.process.returncode == 128 + signal.SIGTERM  # it did not wait for the reader; a busy machine may be slow
    assert gone(engine)
    stalled.close()


def test_ctrl_c_ends_an_idle_server_at_once(own: Served) -> None:
    assert own.seconds_to_end(signal.SIGINT) < 4
    assert own.process.returncode == 0


def test_an_engine_that_is_stopped_twice_and_one_that_died_do_no_harm(long_gguf: Path) -> None:
    engine = LlamaEngine(EngineSettings(long_gguf, {}, 512, 1, 0.0))
    os.kill(engine._process.pid, signal.SIGKILL)
    engine._process.wait()
    assert not engine.alive and "ended by signal 9" in engine.how_it_ended()
    engine.stop()
    engine.stop()


# --- streams ---------------------------------------------------------------------------------------


async def pieces_of(pieces: list[bytes], error: Exception | None) -> AsyncIterator[bytes]:
    """A body that arrives in pieces and may break off."""
    for piece in pieces:
        yield piece
    if error:
        raise error


def stream_of(pieces: list[bytes], seen: Conversation, error: Exception | None = None, in_json: bool = False) -> bytes:
    why = "the engine ended during the answer"

    async def read() -> bytes:
        events = restored_events(pieces_of(pieces, error), "coder", seen, in_json=in_json, why=lambda: why)
        return b"".join([piece async for piece in served_stream(events, ChatWriter(), Record(""))])

    return asyncio.run(read())


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "/home/me/base.gguf"}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n\tab\\c\n-----END PRIVATE KEY-----"


def talk() -> Conversation:
    seen = Redactor().conversation()
    seen.text(f"amy@corp.io {KEY}")
    return seen


PARTS = ["<", "<EMAIL", "_1>", "<EMAIL_1>", "<EMAIL_9>", "<PRIVATE_KEY_1>", ">", "1", "word ", "\u2028", "\x85", "\x1c"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=6)


@given(content=TEXTS, thought=TEXTS, name=TEXTS, arguments=TEXTS, in_json=st.booleans(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_stream_has_the_content_of_the_whole_answer(
    content: list[str], thought: list[str], name: list[str], arguments: list[str], in_json: bool, data: st.DataObject
) -> None:
    seen = talk()
    deltas: list[dict[str, Any]] = [{"content": piece} for piece in content]
    deltas += [{"reasoning_content": piece} for piece in thought]
    deltas += [{"tool_calls": [{"index": 0, "function": {"name": piece}}]} for piece in name]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in arguments]
    # Cut by its limit: the arguments of a complete answer would have to be JSON.
    body = b"".join([*map(chunk, deltas), chunk({}, "length"), b"data: [DONE]\n\n"])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=5)) | {0, len(body)})
    streamed = stream_of([body[a:b] for a, b in pairwise(cuts)], seen, in_json=in_json)
    assert streamed.endswith(b"data: [DONE]\n\n")
    got = {"content": "", "reasoning_content": "", "name": "", "arguments": ""}
    for event in events_of(iter([streamed])):
        assert event["model"] == "coder"
        delta = event["choices"][0]["delta"]
        calls = [call["function"] for call in delta.get("tool_calls", [])]
        for key in got:
            got[key] += "".join(part.get(key) or "" for part in [delta, *calls])
    function = {"name": "".join(name), "arguments": "".join(arguments)}
    message = {
        "content": "".join(content),
        "reasoning_content": "".join(thought),
        "tool_calls": [{"function": function}],
    }
    whole = restored_answer(message, seen, in_json=in_json)
    assert got == {
        "content": whole["content"], "reasoning_content": whole["reasoning_content"],
        **whole["tool_calls"][0]["function"],
    }  # fmt: skip


def test_restored_arguments_are_json_and_log_probabilities_keep_the_models_tokens() -> None:
    seen = talk()
    written = json.dumps({"to": "<EMAIL_1>", "key": "<PRIVATE_KEY_1>", "copy": "<EMAIL_7>"})
    call = {"tool_calls": [{"index": 0, "function": {"name": "send", "arguments": written}}]}
    streamed = stream_of([chunk(call), chunk({}, "tool_calls"), b"data: [DONE]\n\n"], seen)
    first, *_ = events_of(iter([streamed]))
    arguments = json.loads(first["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"to": "amy@corp.io", "key": KEY, "copy": "<EMAIL_7>"}
    tokens = {"content": [{"token": "<"}, {"token": "EMAIL"}, {"token": "_1>"}]}
    event = {"choices": [{"index": 0, "delta": {"content": "<EMAIL_1>"}, "logprobs": tokens, "finish_reason": "stop"}]}
    (told,) = events_of(iter([stream_of([b"data: " + json.dumps(event).encode() + b"\n\n"], seen)[: -len(BROKEN)]]))
    assert told["choices"][0]["logprobs"] == tokens and told["choices"][0]["delta"]["content"] == "amy@corp.io"


BROKEN = stream_of([], Redactor().conversation())


@pytest.mark.parametrize("error", [None, Lost("reset")])
@pytest.mark.parametrize("rest", [b"", b'data: {"choi', b"data: [1\n\n"])
def test_a_stream_that_breaks_off_ends_with_an_error_event(error: Exception | None, rest: bytes) -> None:
    streamed = stream_of([chunk({"content": "one"}), rest], talk(), error)
    *_, last = events_of(iter([streamed]))
    assert last["error"]["type"] == "server_error" and "message" in last["error"] and streamed.endswith(b"\n\n")
    assert b"[DONE]" not in streamed and b"/home/me" not in streamed


def test_an_engine_error_within_a_stream_has_openais_form() -> None:
    told = b'data: {"error": {"code": 500, "message": "no\\u001b[31m more"}}\n\n'
    *_, last = events_of(iter([stream_of([chunk({"content": "a"}), told], talk())]))
    assert last["error"]["message"] == "the engine: no\\x1b[31m more" and last["error"]["type"] == "server_error"


def test_a_chunk_costs_little() -> None:
    body = [chunk({"content": "word "})] * 2_000 + [b"data: [DONE]\n\n"]
    taken = []
    for _ in range(3):
        start = time.thread_time()
        stream_of(body, talk())
        taken.append(time.thread_time() - start)
    assert min(taken) / 2_000 < 500e-6, "about 20 µs, where a token of a small model takes 10,000"


# --- redaction ---------------------------------------------------------------------------------------


def test_tools_schemas_and_stops_lose_their_secrets_too() -> None:
    seen = Redactor().conversation()
    tool = {"type": "function", "function": {"name": "mail", "description": "to amy@corp.io or bob@corp.io"}}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["amy@corp.io"]}}}
    body = {**ASK, "messages": [{"role": "user", "content": "bob@corp.io"}], "tools": [tool], "stop": ["amy@corp.io"]}
    options = {"stop": body["stop"], "response_format": schema}
    asked = engine_request(tiny_bundle(), Asked("coder", body["messages"], [tool], options), seen)
    assert "corp.io" not in json.dumps(asked)
    assert asked["tools"][0]["function"]["description"] == "to <EMAIL_2> or <EMAIL_1>"
    assert asked["stop"] == ["<EMAIL_2>"] and asked["response_format"]["json_schema"]["schema"]["enum"] == ["<EMAIL_2>"]


def test_a_placeholder_in_a_request_names_no_value_of_it() -> None:
    seen = Redactor().conversation()
    turns = [{"role": "user", "content": "for bob@corp.io"}, {"role": "user", "content": "keep <EMAIL_1>"}]
    asked = engine_request(tiny_bundle(), Asked("coder", turns, [], {}), seen)
    assert [m["content"] for m in asked["messages"][1:]] == ["for <EMAIL_2>", "keep <EMAIL_1>"]
    assert seen.restore("<EMAIL_1> <EMAIL_2>") == "<EMAIL_1> bob@corp.io"


def test_arguments_nested_endlessly_are_text() -> None:
    deep = "[" * 100_000
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": deep}}
    turns = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    asked = engine_request(tiny_bundle(), Asked("coder", turns, [], {}), Redactor().conversation())
    assert asked["messages"][-1]["tool_calls"][0]["function"]["arguments"] == deep
