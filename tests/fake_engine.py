"""An engine that keeps what it is asked and answers at once, with paths of this machine all over its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from journeyman.engine_identity import EngineIdentity
from journeyman.manifests import BundleManifest
from journeyman.ports import EngineSettings

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
    """What the application needs of an engine, and the requests that reached it.

    Attributes:
        fails: (status, message) that it answers instead.
    """

    def __init__(self, base: Path, address: str) -> None:
        self.engine_identity = ENGINE
        self.settings = EngineSettings(base, {}, 512, 1, 0.0)
        self.address, self.headers = address, {"Authorization": "Bearer k"}
        self.asked: list[dict[str, Any]] = []
        self.fails: tuple[int, str] | None = None
        self.alive = True

    def stop(self) -> None:
        """It answers on: the next application of the test may have it."""

    kill = stop


def _answer(name: str, said: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", name: said}
    return {"id": "x", "object": "o", "created": 1, "model": PATH, "system_fingerprint": PATH, "choices": [choice]}


@contextmanager
def fake_engine(base: Path) -> Iterator[FakeEngine]:
    """A server on loopback that answers as llama.cpp's does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.asked.append(body)
            if engine.fails:
                self._send(engine.fails[0], json.dumps({"error": {"message": engine.fails[1]}}), "application/json")
            elif body.get("stream"):
                events = [json.dumps(_answer("delta", {"content": "ok"})), "[DONE]"]
                self._send(200, "".join(f"data: {one}\n\n" for one in events), "text/event-stream")
            else:
                said = {"role": "assistant", "content": "ok"}
                self._send(200, json.dumps(_answer("message", said)), "application/json")

        def _send(self, status: int, text: str, kind: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    engine = FakeEngine(base, f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
