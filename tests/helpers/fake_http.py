"""A server on loopback that answers as a test tells it to, and records its requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A reply.

    Attributes:
        drop: close the connection without a reply.
    """

    body: bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False


def json_reply(document: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(document), status, {"Content-Type": "application/json"})


def events_reply(*events: Any, done: bool = True) -> Reply:
    """Server-sent events; without `done` the stream breaks off after the last one."""
    told = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return Reply("".join(told), headers={"Content-Type": "text/event-stream"})


def answer_events(*pieces: str, done: bool = True) -> Reply:
    """A streamed chat completion of these pieces, with 7 prompt tokens and 3 answer tokens."""
    events: list[Any] = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    if done:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    return events_reply(*events, done=done)


@dataclass
class FakeHttp:
    """The running server.

    Attributes:
        address: without a path.
        asked: all requests so far, in order of arrival.
        first: replies to send before calling the test's function; taken from the front.
    """

    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    first: list[Reply] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL of an OpenAI-compatible API."""
        return f"{self.address}/v1"


@contextmanager
def fake_http(reply: Callable[[Asked], Reply], first: Sequence[Reply] = ()) -> Iterator[FakeHttp]:
    """Serves until the end of the block; `reply` is called in a thread for each request."""
    made, lock = FakeHttp(first=list(first)), Lock()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            with lock:
                made.asked.append(asked)
                told = made.first.pop(0) if made.first else None
            told = told or reply(asked)
            if told.drop:
                return
            data = told.body.encode() if isinstance(told.body, str) else told.body
            self.send_response(told.status)
            for name, value in {**told.headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
