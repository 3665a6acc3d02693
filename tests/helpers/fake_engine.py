"""An engine that records its requests and answers at once, with paths of this machine all over its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_http import Asked, Reply, events_reply, fake_http, json_reply
from journeyman.engine_identity import EngineIdentity
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings

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
    """

    def __init__(self, base: Path, address: str) -> None:
        self.engine_identity = ENGINE
        self.settings = EngineSettings(base, {}, 512, 1, 0.0)
        self.address, self.headers = address, {"Authorization": "Bearer k"}
        self.asked: list[dict[str, Any]] = []
        self.fails: tuple[int, str] | None = None
        self.says = ["ok"]
        self.alive = True

    def stop(self) -> None:
        """Keeps the server running: the next application of the test may use it."""

    kill = stop


def _answer(name: str, said: dict[str, Any], finish: str | None = "stop") -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, name: said}
    return {"id": "x", "object": "o", "created": 1, "model": PATH, "system_fingerprint": PATH, "choices": [choice]}


@contextmanager
def fake_engine(base: Path) -> Iterator[FakeEngine]:
    """A server on loopback that answers as llama.cpp's server does."""

    def reply(asked: Asked) -> Reply:
        body = asked.json
        engine.asked.append(body)
        if engine.fails:
            return json_reply({"error": {"message": engine.fails[1]}}, engine.fails[0])
        if body.get("stream"):
            chunks = [_answer("delta", {"content": piece}, finish=None) for piece in engine.says[:-1]]
            return events_reply(*chunks, _answer("delta", {"content": engine.says[-1]}))
        return json_reply(_answer("message", {"role": "assistant", "content": "".join(engine.says)}))

    with fake_http(reply) as server:
        engine = FakeEngine(base, server.address)
        yield engine
