"""What happened to each request, for metrics and for the log; its contents only where they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from journeyman.serving.contents import Contents
from journeyman.serving.dialects.pieces import Usage, usage_of
from journeyman.serving.metrics import Metrics

CLIENT_LEFT = 499
_SCOPE = "journeyman.record"
_NO_ROLE = ""

Log = Callable[[Mapping[str, Any]], None]


@dataclass
class Record:
    """One request.

    Attributes:
        role, api: empty if the request was refused before they were known.
        key: the name of the key that was sent.
        queue_s: time until the engine took it; None if it never did.
        first_s: time until the first byte of a stream.
        broken: the code of why a stream ended with an error event.
        contents: for the log; None unless they are logged.
        differences: how the prompt differs from those of the training.
    """

    path: str
    role: str = _NO_ROLE
    api: str = ""
    key: str = ""
    status: int = CLIENT_LEFT
    streamed: bool = False
    begun: float = field(default_factory=time.monotonic)
    queue_s: float | None = None
    first_s: float | None = None
    usage: Usage | None = None
    finish: str | None = None
    broken: str = ""
    complete: bool = False
    differences: tuple[str, ...] = ()
    contents: Contents | None = None

    def since(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.begun

    def hear(self, event: Mapping[str, Any], number: int) -> None:
        """Takes an answer or a chunk, as the engine sent it, into the contents.

        Args:
            number: of the answer, if the request asked for several.
        """
        if self.contents is not None:
            self.contents.add(event, number)


def record_of(scope: Scope) -> Record:
    """The record of a request; one that nobody reads if the application has no Observer."""
    found: Record = scope.setdefault(_SCOPE, Record(scope.get("path", "")))
    return found


def note(record: Record, event: Mapping[str, Any]) -> None:
    """Notes the token counts and the finish reason that an answer or a chunk contains."""
    record.usage = usage_of(event) or record.usage
    for choice in event.get("choices") or ():
        record.finish = choice.get("finish_reason") or record.finish


class Observer:
    """ASGI middleware in front of everything else.

    Args:
        paths: path → API of the requests that are counted; others, such as health checks, are not.
        log: called with the fields of each counted request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Mapping[str, str], log: Log | None = None) -> None:
        self._app, self._metrics, self._paths, self._log = app, metrics, paths, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        api = self._paths.get(scope.get("path", ""))
        if scope["type"] != "http" or api is None:
            return await self._app(scope, receive, send)
        record = Record(scope["path"], api=api)
        scope[_SCOPE] = record

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            elif message["type"] == "http.response.body":
                if record.first_s is None and message.get("body"):
                    record.first_s = record.since()
                record.complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._count(record)

    def _count(self, record: Record) -> None:
        metrics, role = self._metrics, record.role
        left = record.status == 200 and not record.complete
        status = CLIENT_LEFT if left else record.status
        metrics.requests.add(role, record.api, str(status))
        metrics.request_s.add(record.since(), role)
        if record.broken:
            metrics.broken.add(role, record.api)
        if record.streamed and record.status == 200 and record.first_s is not None:
            metrics.first_token_s.add(record.first_s, role)
        if record.queue_s is not None:
            metrics.queue_s.add(record.queue_s, role)
        if record.usage is not None:
            metrics.prompt_tokens.add(role, by=record.usage.prompt)
            metrics.cached_tokens.add(role, by=record.usage.cached)
            metrics.answer_tokens.add(role, by=record.usage.answer)
        for difference in record.differences:
            metrics.differences.add(role, difference)
        if self._log is not None:
            self._log(_line(record, status))


def _line(record: Record, status: int) -> dict[str, Any]:
    """The fields of a log line; those that are not known are left out."""
    usage = record.usage
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "api": record.api,
        "role": record.role,
        "key": record.key or None,
        "status": status,
        "stream": record.streamed,
        "queue_s": _rounded(record.queue_s),
        "first_token_s": _rounded(record.first_s if record.streamed else None),
        "duration_s": _rounded(record.since()),
        "prompt_tokens": usage and usage.prompt,
        "cached_tokens": usage and usage.cached,
        "answer_tokens": usage and usage.answer,
        "finish_reason": record.finish,
        "broken": record.broken or None,
        "prompt_differences": list(record.differences) or None,
    }
    contents = record.contents.fields() if record.contents else {}
    return {name: value for name, value in fields.items() if value is not None} | contents


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
