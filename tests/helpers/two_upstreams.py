"""A teacher and a student that answer with scripted text, and a recorder in front of both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from journeyman.api.recording import Recording
from journeyman.gateway.row_files import lines_of, row_files
from scripted_upstream import Script, ScriptedUpstream, Seen, chunks, recorded, scripted, sse
from scripted_upstream import http as answer_of

BUNDLE = "bundle-1"


def chat(text: str, finish: str = "stop") -> list[bytes]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
    return [answer_of(json.dumps(body).encode())]


def streamed(*pieces: str, end: bool = True) -> list[bytes]:
    """A chat completion in events."""

    def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}

    events: list[Any] = [event({"content": piece}) for piece in pieces]
    if end:
        events += [event({}, "stop"), "[DONE]"]
    return chunks(*sse(*events), end=end)


def student_script(
    answer: Callable[[Seen], Script], bundle: Callable[[], str] = lambda: BUNDLE, ready: Script = ()
) -> Callable[[Seen], Script]:
    """A student that also says what it serves, unless `ready` is written instead."""

    def script(seen: Seen) -> Script:
        if seen.path == "/ready":
            if ready:
                return ready
            return [answer_of(json.dumps({"status": "ok", "bundle": bundle()}).encode())]
        return answer(seen)

    return script


@dataclass
class Both:
    """What a test has."""

    folder: Path
    teacher: ScriptedUpstream
    student: ScriptedUpstream
    recorder: Recording

    def ask(
        self, text: str = "Q", *, conversation: str = "", path: str = "/v1/chat/completions", **fields: Any
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of an answer for the role coder."""
        body = {"model": "coder", "messages": [{"role": "user", "content": text}], **fields}
        return self.post(path, body, {"Journeyman-Conversation": conversation} if conversation else {})

    def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None, *, method: str = "POST",
        patience_s: float = 20.0,
    ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        """Status, headers and body of an answer. A body of bytes is sent as it is; the client leaves at last."""
        parts = urlsplit(self.recorder.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=patience_s)
        sent = {
            "Content-Type": "application/json",
            "Authorization": "Bearer sk-teacher-key-0123456789",
            **(headers or {}),
        }
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    @property
    def asked_student(self) -> list[Seen]:
        return [seen for seen in self.student.seen if seen.path != "/ready"]


@contextmanager
def both(
    folder: Path,
    teacher: Callable[[Seen], Script],
    student: Callable[[Seen], Script],
    settings: str = "",
    bundle: Callable[[], str] = lambda: BUNDLE,
    ready: Script = (),
    **options: Any,
) -> Iterator[Both]:
    """The recorder with [route] and more settings, such as `[route.roles.coder]`."""
    with scripted(teacher) as first, scripted(student_script(student, bundle, ready)) as second:
        route = f'[route]\nstudent = "{second.url}"\n{settings}'
        with recorded(folder, first.url, route, **{"assess": False, **options}) as recorder:
            yield Both(folder, first, second, recorder)


def undelivered(folder: Path) -> list[dict[str, Any]]:
    """The rows of answers that no client got."""
    place = folder / "routing" / "undelivered"
    return [json.loads(line) for path in row_files(place) for line in lines_of(path)]
