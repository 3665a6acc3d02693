"""Converts a streamed answer of the engine for the client.

Each chunk gets the role as its `model` (the engine's is the path of its file), and redacted values are restored. If the
engine fails, the stream ends with an error event in OpenAI's form, never silently.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from journeyman.foreign import plain
from journeyman.inference.chat import Lines, data_of
from journeyman.redaction.redactor import Conversation, StreamRestorer
from journeyman.serving.answers import named
from journeyman.serving.errors import without_paths

_DONE = b"data: [DONE]\n\n"
_Place = tuple[str, int]
"""A text of a choice that arrives in pieces: its field and the index of its tool call."""


def error_object(message: str) -> dict[str, Any]:
    """An error of the engine in the form of OpenAI's API."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": "engine_error"}}


async def served_stream(
    upstream: httpx.Response,
    role: str,
    seen: Conversation,
    *,
    in_json: bool = False,
    why: Callable[[], str] = lambda: "the engine ended during the answer",
) -> AsyncIterator[bytes]:
    """The engine's server-sent events, converted for the client. Ends with [DONE] or with an error event.

    Args:
        in_json: the answer's text is JSON (because of `response_format`), so restored values are escaped.
        why: returns the error message for an answer that breaks off.
    """
    restored, lines = _Restored(seen, in_json), Lines()
    try:
        async for piece in upstream.aiter_bytes():
            for line in lines.feed(piece):
                data = data_of(line)
                if data == b"[DONE]":
                    yield _DONE
                    return
                if data:
                    event = json.loads(data.decode(errors="replace"))
                    if "error" in event:
                        yield _event(_refusal(event["error"]))
                        return
                    yield _event(restored.event(event, role))
    except (httpx.HTTPError, httpx.StreamError, ValueError):
        pass  # reported by the error event below
    finally:
        await upstream.aclose()
    yield _event(error_object(why()))


def _event(document: dict[str, Any]) -> bytes:
    # Non-ASCII text is sent unescaped, except for surrogates, which cannot be encoded as UTF-8.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        return b"data: " + text.encode() + b"\n\n"
    except UnicodeEncodeError:
        return b"data: " + json.dumps(document).encode() + b"\n\n"


def _refusal(error: Any) -> dict[str, Any]:
    message = error.get("message") if isinstance(error, dict) else error
    return error_object(f"the engine: {plain(without_paths(str(message)), 300)}")


class _Restored:
    """The restorers of one stream, for each choice: content, reasoning, and each call's name and arguments."""

    def __init__(self, seen: Conversation, in_json: bool) -> None:
        self._seen = seen
        self._in_json = in_json
        self._restorers: dict[int, dict[_Place, StreamRestorer]] = {}

    def event(self, event: dict[str, Any], role: str) -> dict[str, Any]:
        event = named(event, role)
        if self._seen.counts:
            for choice in event.get("choices") or []:
                self._choice(choice)
        return event

    def _choice(self, choice: dict[str, Any]) -> None:
        restorers = self._restorers.setdefault(choice.get("index", 0), {})
        delta = choice.get("delta") or {}
        for field in ("content", "reasoning_content"):
            self._grow(restorers, delta, field, (field, 0), self._in_json and field == "content")
        for call in delta.get("tool_calls") or []:
            number, function = call.get("index", 0), call.get("function") or {}
            self._grow(restorers, function, "name", ("name", number), False)
            self._grow(restorers, function, "arguments", ("arguments", number), True)
        if choice.get("finish_reason") is not None:
            _finish(restorers, delta)
        choice["delta"] = delta

    def _grow(
        self, restorers: dict[_Place, StreamRestorer], holder: dict[str, Any], key: str, place: _Place, in_json: bool
    ) -> None:
        piece = holder.get(key)
        if isinstance(piece, str):
            if place not in restorers:
                restorers[place] = StreamRestorer(self._seen, in_json=in_json)
            holder[key] = restorers[place].feed(piece)


def _finish(restorers: dict[_Place, StreamRestorer], delta: dict[str, Any]) -> None:
    """Adds held-back text that only looked like the beginning of a placeholder to the last chunk, unchanged."""
    for (field, number), restorer in restorers.items():
        held = restorer.finish()
        if held and field in ("name", "arguments"):
            calls = delta.setdefault("tool_calls", [])
            call = next((c for c in calls if c.get("index", 0) == number), None)
            if call is None:
                calls.append(call := {"index": number, "function": {}})
            function = call.setdefault("function", {})
            function[field] = (function.get(field) or "") + held
        elif held:
            delta[field] = (delta.get(field) or "") + held
