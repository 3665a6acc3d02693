"""Converts LangChain's serialized messages to turns with a role, for sources.turns.

Source: LangChain's dumps ({"lc": 1, "id": […, "AIMessage"], "kwargs": {…}}), messages_to_dict ({"type": "ai",
"data": {…}}) and the flat {"type": "human", "content": …}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.sources.fields import first, mapping, one_of, without

_TYPES = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool", "chat": "user", "function": "tool",
    "HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool",
    "FunctionMessage": "tool", "ChatMessage": "user", "HumanMessageChunk": "user", "AIMessageChunk": "assistant",
    "SystemMessageChunk": "system", "ToolMessageChunk": "tool",
}  # fmt: skip
_OWN = ("type", "additional_kwargs", "id", "example", "tool_call_chunks")


def is_message(value: Any) -> bool:
    """Whether the value has one of LangChain's shapes; a turn that only has a role does not."""
    if not isinstance(value, Mapping):
        return False
    serialized = isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list)
    return serialized or (one_of(value.get("type"), _TYPES) and ("content" in value or "data" in value))


def as_turn(value: Any) -> Any:
    """The message with its role; a value with none of LangChain's shapes is returned unchanged."""
    if not is_message(value):
        return value
    one = _opened(value)
    if "role" not in one and one_of(one.get("type"), _TYPES):
        one["role"] = _TYPES[one["type"]]
    more = mapping(one.get("additional_kwargs"))
    calls = first(one.get("tool_calls") or None, more.get("tool_calls"), None)
    single = None if calls else more.get("function_call")
    thought = first(one.get("reasoning_content"), more.get("reasoning_content"))
    kept = without(one, *_OWN)
    kept["content"] = one.get("content", "")
    beside = without(more, "tool_calls", "function_call", "reasoning_content")
    kept |= {"additional_kwargs": beside} if beside else {}
    return {**kept, "tool_calls": calls, "function_call": single, "reasoning_content": thought}


def finish_of(value: Any) -> Any:
    """The finish reason in a message's response_metadata."""
    one = _opened(value) if is_message(value) else mapping(value)
    meta = mapping(one.get("response_metadata"))
    more = mapping(one.get("additional_kwargs"))
    return first(meta.get("finish_reason"), meta.get("stop_reason"), meta.get("finishReason"), meta.get("stopReason"),
                 meta.get("done_reason"), more.get("finish_reason"), more.get("stop_reason"))  # fmt: skip


def _opened(value: Mapping[str, Any]) -> dict[str, Any]:
    """The message's own fields, with its class as `type`."""
    if isinstance(value.get("kwargs"), Mapping):
        path = value.get("id")
        name = path[-1] if isinstance(path, list) and path else None
        one = dict(value["kwargs"])
        return {**one, "type": name if one_of(name, _TYPES) else one.get("type")}
    if isinstance(value.get("data"), Mapping):
        return {**value["data"], "type": value["type"]}
    return dict(value)
