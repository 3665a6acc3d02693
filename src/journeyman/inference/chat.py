"""Streamed chat completions over HTTP, shared by the engine and endpoints."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from journeyman.protocols import Question
from journeyman.records import Message, Prediction, ToolCall


def conversation(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The part of a request that contains messages and tools."""
    asked: dict[str, Any] = {"messages": [message.as_openai() for message in messages]}
    return {**asked, "tools": list(tools)} if tools else asked


def request_body(question: Question, temperature: float) -> dict[str, Any]:
    """The body of a streaming request with the question's limits."""
    return {
        **conversation(question.messages, question.tools),
        "temperature": temperature,
        "max_tokens": question.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def read_answer(
    events: Iterator[dict[str, Any]], question: Question, on_token: Callable[[int], None] | None, start: float
) -> Prediction:
    """Collects a streamed answer; `latency_s` is the time from `start` (perf_counter) to the last event."""
    first: float | None = None
    text, finish, usage, count = [], "error", {"prompt_tokens": 0, "completion_tokens": 0}, 0
    calls: dict[int, dict[str, str]] = {}
    for event in events:
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            piece = delta.get("content") or ""
            _gather_calls(calls, delta.get("tool_calls") or [])
            if piece or delta.get("tool_calls"):
                first = first or time.perf_counter()
                text.append(piece)
                count += 1
                if on_token:
                    on_token(count)
    end = time.perf_counter()
    return Prediction(
        id=question.row_id,
        role=question.role,
        arm=question.arm,
        text="".join(text),
        calls=[ToolCall(name=c["name"], arguments=_json_or_text(c["arguments"])) for c in calls.values()],
        finish_reason=finish,
        latency_s=end - start,
        first_token_s=(first or end) - start,
        prompt_tokens=usage.get("prompt_tokens", 0),
        answer_tokens=usage.get("completion_tokens", 0),
        load=question.load,
    )


class Lines:
    """Splits bytes that arrive in pieces into lines, at line feeds only.

    Text has other line separators (U+2028, U+0085), which an answer's JSON may contain unescaped.
    """

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are now complete, without their line feeds."""
        first, *rest = piece.split(b"\n")
        self._pending.append(first)
        if not rest:
            return []
        lines = [b"".join(self._pending), *rest[:-1]]
        self._pending = [rest[-1]]
        return lines


def data_of(line: bytes) -> bytes | None:
    """The data of a line of server-sent events; None for comments, blank lines and other fields."""
    return line[5:].strip() if line.startswith(b"data:") else None


def events_of(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events."""
    lines = Lines()
    for piece in itertools.chain(pieces, [b"\n"]):
        for line in lines.feed(piece):
            data = data_of(line)
            if data and data != b"[DONE]":
                yield json.loads(data.decode(errors="replace"))


def _gather_calls(calls: dict[int, dict[str, str]], pieces: Sequence[dict[str, Any]]) -> None:
    """Adds a streamed piece of tool calls: the name comes first, then the arguments in pieces."""
    for piece in pieces:
        call = calls.setdefault(piece.get("index", 0), {"name": "", "arguments": ""})
        for key in call:
            call[key] += piece.get("function", {}).get(key) or ""


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
