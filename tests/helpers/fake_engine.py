"""An engine that records its requests and answers at once, with paths of this machine all over its answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_http import Asked, Reply, events_reply, fake_http, json_reply
from journeyman.engine_identity import EngineIdentity
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings, Pulse

PATH = "/home/someone/models/base.gguf"
ROLE = "coder"
ASK = {"model": ROLE, "messages": [{"role": "user", "content": "Task: x"}]}
BUNDLE = BundleManifest(
    roles=[ROLE, "te/ster"], override=None, base_sha256="", adapter_sha256={}, adapter_files={}, base_file="base.gguf",
    base_path=PATH, system_prompts={ROLE: "You are a coder."}, redact={"secrets": True, "personal": True},
    settings={"context": 512, "max_new_tokens": 8, "temperature": 0.0, "threads": 1, "parallel": 1},
)  # fmt: skip


ENGINE = EngineIdentity(
    name="fake", version="1", build={"commit": "abc"}, settings={"n_batch": 8}, processor="one", cpu_features=["AVX2"]
)


class FakeEngine:
    """The parts of an engine that the application needs, and the requests that reached it.

    Attributes:
        fails: (status, message) to answer with instead.
        says: the pieces of every answer; a streamed one sends each as a chunk.
        thinks: the reasoning before it.
        thinks_in: the field of the reasoning.
        logprobs: give log probabilities, as llama.cpp does: none for `top_logprobs: 0`, and 20 alternatives by default.
        calls: tool calls of every answer after its text, as (id, name, pieces of the arguments).
        finish: the finish reason.
        cut: break streams off before their end.
        breaks: the error that ends streams after their first chunk.
        gate: while it is cleared, no request is answered.
        more: fields of every chunk.
        stopped_by: the text of `stop` that ended the answer, for requests that want to know.
    """

    def __init__(self, base: Path, address: str) -> None:
        self.engine_identity = ENGINE
        self.settings = EngineSettings(base, {}, 512, 1, 0.0)
        self.address, self.headers = address, {"Authorization": "Bearer k"}
        self.asked: list[dict[str, Any]] = []
        self.fails: tuple[int, str] | None = None
        self.says = ["ok"]
        self.thinks = ""
        self.thinks_in = "reasoning_content"
        self.logprobs = False
        self.calls: list[tuple[str, str, list[str]]] = []
        self.finish: str | None = "stop"
        self.cut = False
        self.breaks = ""
        self.stopped_by = ""
        self.more: dict[str, Any] = {}
        self.alive = True
        self.files: dict[Path, str] = {}
        self.gate = threading.Event()
        self.gate.set()

    def selection(self, role: str) -> dict[str, Any]:
        return {"lora": self.settings.lora(self.settings.adapter_of(role))}

    def pulse(self) -> Pulse | None:
        return None

    def stop(self) -> None:
        """Keeps the server running: the next application of the test may use it."""

    kill = stop


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}


def _logprobs(body: dict[str, Any], token: str) -> dict[str, Any] | None:
    count = body.get("top_logprobs", 20)
    if not body.get("logprobs") or not count:
        return None
    one = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return {"content": [{**one, "id": 7, "top_logprobs": [{**one, "token": f"{token}{n}"} for n in range(count)]}]}


def _answer(name: str, said: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, name: said}
    return {
        "id": "x",
        "object": "o",
        "created": 1,
        "model": PATH,
        "system_fingerprint": PATH,
        "choices": [choice],
        **more,
    }


def _chunks(engine: FakeEngine, usage: bool) -> list[dict[str, Any]]:
    """The chunks of a streamed answer; a call's name and id are in its first one only, as llama.cpp sends them."""
    deltas: list[dict[str, Any]] = [{engine.thinks_in: engine.thinks}] if engine.thinks else []
    deltas += [{"content": piece} for piece in engine.says]
    for number, (call_id, name, pieces) in enumerate(engine.calls):
        first = {"index": number, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        deltas += [{"tool_calls": [{"index": number, "function": {"arguments": piece}}]} for piece in pieces]
    chunks = [_answer("delta", delta, finish=None, **engine.more) for delta in deltas[:-1]]
    verbose = {"__verbose": {"stopping_word": engine.stopped_by}} if engine.stopped_by else {}
    chunks.append(_answer("delta", deltas[-1], engine.finish, **engine.more, **verbose))
    return [*chunks, {**_answer("delta", {}), "choices": [], "usage": USAGE}] if usage else chunks


def _message(engine: FakeEngine) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": "".join(engine.says)}
    if engine.thinks:
        said[engine.thinks_in] = engine.thinks
    if engine.calls:
        said["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": "".join(pieces)}}
            for call_id, name, pieces in engine.calls
        ]
    return said


@contextmanager
def fake_engine(base: Path) -> Iterator[FakeEngine]:
    """A server on loopback that answers as llama.cpp's server does."""

    def reply(asked: Asked) -> Reply:
        body = asked.json
        assert engine.gate.wait(60)
        if asked.path == "/apply-template":
            return json_reply({"prompt": " ".join(turn["content"] for turn in body["messages"])})
        if asked.path == "/tokenize":
            return json_reply({"tokens": list(range(len(body["content"].split())))})
        engine.asked.append(body)
        if engine.fails:
            return json_reply({"error": {"message": engine.fails[1]}}, engine.fails[0])
        if body.get("stream"):
            chunks = _chunks(engine, bool(body.get("stream_options", {}).get("include_usage")))
            for chunk, text in zip(chunks[:-2], engine.says, strict=False) if engine.logprobs else ():
                chunk["choices"][0]["logprobs"] = _logprobs(body, text)
            if engine.breaks:
                return events_reply(chunks[0], {"error": {"message": engine.breaks}}, done=False)
            return events_reply(*(chunks[:-2] if engine.cut else chunks), done=not engine.cut)
        verbose = {"__verbose": {"stopping_word": engine.stopped_by}} if engine.stopped_by else {}
        answer = _answer("message", _message(engine), engine.finish, usage=USAGE, **verbose)
        if engine.logprobs:
            answer["choices"][0]["logprobs"] = _logprobs(body, "ok")
        return json_reply(answer)

    with fake_http(reply) as server:
        engine = FakeEngine(base, server.address)
        yield engine
