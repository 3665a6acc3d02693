"""Converts a streamed answer of the engine for the client.

Each chunk gets the role as its `model` (the engine's is the path of its file), and redacted values are restored. If the
engine fails, the stream ends with an error event in the client's dialect, never silently.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from journeyman.foreign import plain
from journeyman.inference.chat import Lines, data_of
from journeyman.redaction.redactor import Conversation, StreamRestorer
from journeyman.serving.answers import named
from journeyman.serving.dialects.dialect import EventWriter
from journeyman.serving.endings import Endings
from journeyman.serving.errors import LATE, BrokenStream, RequestError, without_paths
from journeyman.serving.forced_call import ForcedCalls
from journeyman.serving.observing import Record, note
from journeyman.serving.upstream import Late, Lost
from journeyman.serving.writing import Patience

_STALLED_S = 1.0
_Place = tuple[str, int]
"""A text of a choice that arrives in pieces: its field and the index of its tool call."""


async def served_stream(
    events: AsyncIterator[dict[str, Any]],
    writer: EventWriter,
    record: Record,
    stalled: Callable[[], None] = lambda: None,
) -> AsyncIterator[bytes]:
    """An answer's chunks in the client's dialect. Ends as the dialect ends a complete answer, or with an error event.

    Args:
        events: from restored_events.
        record: what becomes known of the answer is noted in it.
        stalled: called if the client accepts nothing for a second. The engine does not wait for it.
    """
    try:
        with Patience(_STALLED_S, stalled) as patience:
            async for event in events:
                note(record, event)
                for piece in writer.chunk(event):
                    patience.begin()
                    yield piece
                    patience.end()
    except BrokenStream as broken:
        record.broken = broken.code
        for piece in writer.failed(str(broken)):
            yield piece
    else:
        for piece in writer.end():
            yield piece


async def restored_events(
    chunks: AsyncIterator[bytes],
    role: str,
    seen: Conversation,
    *,
    in_json: bool = False,
    must_call: bool = False,
    why: Callable[[], str],
    heard: Callable[[dict[str, Any]], None] = lambda event: None,
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed answer, up to its [DONE], named and with redacted values restored.

    Args:
        chunks: the bytes of the engine's server-sent events, cut anywhere.
        in_json: the answer's text is JSON (because of `response_format`), so restored values are escaped.
        must_call: the text is a tool call; an answer without one is an error.
        why: returns the error message for an answer that breaks off.
        heard: gets each chunk as the engine sent it.

    Raises:
        BrokenStream: the engine failed, took too long, the connection to it ended before [DONE], or the answer is not
            complete (see Endings).
    """
    restored, lines = _Restored(seen, in_json), Lines()
    forced, endings = ForcedCalls(), Endings(must_call=must_call)
    try:
        async for piece in chunks:
            for line in lines.feed(piece):
                data = data_of(line)
                if data == b"[DONE]":
                    endings.check()
                    return
                if not data:
                    continue
                event = json.loads(data.decode(errors="replace"))
                if not isinstance(event, dict):
                    raise BrokenStream("the engine sent a chunk that is not an object", "engine_error")
                if event.get("error"):
                    raise BrokenStream(_refusal(event["error"]), "engine_error")
                heard(event)
                event = restored.event(event, role)
                if must_call:
                    event = forced.event(event)
                endings.feed(event)
                yield event
    except Late as error:
        raise BrokenStream(LATE, "late") from error
    except RequestError as error:
        raise BrokenStream(error.message, error.code or "engine_error") from error
    except (Lost, ValueError):
        pass  # reported below
    raise BrokenStream(why())


def _refusal(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return f"the engine: {plain(without_paths(str(message)), 300)}"


class _Restored:
    """The restorers of one stream, for each choice: content, reasoning, and each call's name and arguments."""

    def __init__(self, seen: Conversation, in_json: bool) -> None:
        self._seen = seen
        self._in_json = in_json
        self._restorers: dict[int, dict[_Place, StreamRestorer]] = {}

    def event(self, event: dict[str, Any], role: str) -> dict[str, Any]:
        event = named(event, role, self._seen)
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
