"""Redacts requests like the training data, and restores the redacted values in the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.redaction.redactor import Conversation

_SAYING = ("tools", "tool_choice", "response_format", "stop")


def without_secrets(messages: Sequence[dict[str, Any]], seen: Conversation) -> list[dict[str, Any]]:
    """The turns with placeholders, numbered in the order in which ingest numbers them: the system's come last."""
    for message in messages:
        _reserve(message.get("content"), seen)
    turns = {place: _turn(message, seen) for place, message in enumerate(messages) if message.get("role") != "system"}
    return [turns.get(place) or _turn(message, seen) for place, message in enumerate(messages)]


def without_secrets_elsewhere(request: dict[str, Any], seen: Conversation) -> dict[str, Any]:
    """The request with placeholders in tools, schemas and stop texts; call it after the messages, as ingest does."""
    return {**request, **{key: seen.value(request[key]) for key in _SAYING if request.get(key) is not None}}


def asks_for_json(request: Mapping[str, Any]) -> bool:
    """Whether the request asks for JSON as the answer's content."""
    form = request.get("response_format")
    return isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")


def _reserve(content: Any, seen: Conversation) -> None:
    parts = content if isinstance(content, list) else [{"text": content}]
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            seen.reserve(part["text"])


def _turn(message: dict[str, Any], seen: Conversation) -> dict[str, Any]:
    turn = dict(message)
    if "content" in turn:
        turn["content"] = _content(turn["content"], seen, system=turn.get("role") == "system")
    if isinstance(turn.get("tool_calls"), list):
        turn["tool_calls"] = [_call(call, seen) for call in turn["tool_calls"]]
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            turn[key] = seen.text(turn[key])
    return turn


def _content(content: Any, seen: Conversation, *, system: bool) -> Any:
    if isinstance(content, str):
        return seen.text(content, system=system)
    if isinstance(content, list):
        return [
            {**p, "text": seen.text(p["text"], system=system)}
            if isinstance(p, dict) and isinstance(p.get("text"), str)
            else p
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
        except (ValueError, RecursionError):  # not JSON, or nested too deeply to be parsed
            arguments = seen.text(arguments)
    else:
        arguments = seen.value(arguments)
    named = {"arguments": arguments}
    if isinstance(function.get("name"), str):
        named["name"] = seen.text(function["name"])
    made = {**call, "function": {**function, **named}}
    return {**made, "id": seen.text(made["id"])} if isinstance(made.get("id"), str) else made


def restored_answer(message: Any, seen: Conversation, *, in_json: bool = False) -> Any:
    """An answer's message with the values restored, as `served_stream` restores them piece by piece.

    Values are escaped within JSON: in a call's arguments, and in the content if JSON was requested. Log probabilities
    keep the model's own tokens, including placeholders, because restored values have none.
    """
    if not isinstance(message, dict):
        return message
    restored = dict(message)
    for field in ("content", "reasoning_content"):
        if isinstance(restored.get(field), str):
            restored[field] = seen.restore(restored[field], in_json=in_json and field == "content")
    if isinstance(restored.get("tool_calls"), list):
        restored["tool_calls"] = [_restored_call(call, seen) for call in restored["tool_calls"]]
    return restored


def _restored_call(call: Any, seen: Conversation) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    texts = {key: function[key] for key in ("name", "arguments") if isinstance(function.get(key), str)}
    named = {key: seen.restore(text, in_json=key == "arguments") for key, text in texts.items()}
    return {**call, "function": {**function, **named}}
