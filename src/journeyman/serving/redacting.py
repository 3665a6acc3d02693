"""Requests lose their secrets on the way in as the training data did, and answers get them back on the way out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from journeyman.redaction.redactor import Conversation, StreamRestorer


def without_secrets(messages: Sequence[dict[str, Any]], seen: Conversation) -> list[dict[str, Any]]:
    """The turns with placeholders, numbered in the order in which ingest numbers them."""
    return [_turn(message, seen) for message in messages]


def _turn(message: dict[str, Any], seen: Conversation) -> dict[str, Any]:
    turn = dict(message)
    if "content" in turn:
        turn["content"] = _content(turn["content"], seen)
    if isinstance(turn.get("tool_calls"), list):
        turn["tool_calls"] = [_call(call, seen) for call in turn["tool_calls"]]
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            turn[key] = seen.text(turn[key])
    return turn


def _content(content: Any, seen: Conversation) -> Any:
    if isinstance(content, str):
        return seen.text(content)
    if isinstance(content, list):
        return [
            {**p, "text": seen.text(p["text"])} if isinstance(p, dict) and isinstance(p.get("text"), str) else p
            for p in content
        ]
    return content


def _call(call: Any, seen: Conversation) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.dumps(seen.value(json.loads(arguments)), ensure_ascii=False)
        except ValueError:
            arguments = seen.text(arguments)
    else:
        arguments = seen.value(arguments)
    named = {"arguments": arguments}
    if isinstance(function.get("name"), str):
        named["name"] = seen.text(function["name"])
    made = {**call, "function": {**function, **named}}
    return {**made, "id": seen.text(made["id"])} if isinstance(made.get("id"), str) else made


async def restored_stream(lines: AsyncIterator[str], seen: Conversation) -> AsyncIterator[bytes]:
    """Server-sent events with the values put back; a placeholder may come in several pieces."""
    restorers: dict[tuple[Any, ...], StreamRestorer] = {}
    async for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            yield line.encode() + b"\n"
            continue
        event = json.loads(line[6:])
        for choice in event.get("choices", []):
            delta, index = choice.get("delta") or {}, choice.get("index", 0)
            ended = choice.get("finish_reason") is not None
            if isinstance(delta.get("content"), str) or ended:
                restorer = restorers.setdefault((index,), StreamRestorer(seen))
                text = restorer.feed(delta.get("content") or "") + (restorer.finish() if ended else "")
                if text or "content" in delta:
                    delta["content"] = text
            for call in delta.get("tool_calls") or []:
                function = call.get("function") or {}
                if isinstance(function.get("arguments"), str):
                    restorer = restorers.setdefault((index, call.get("index", 0)), StreamRestorer(seen))
                    function["arguments"] = restorer.feed(function["arguments"])
            choice["delta"] = delta
        yield b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n"
