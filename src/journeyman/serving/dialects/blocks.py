"""Anthropic's content blocks as turns: tool results become turns of their own, before the text, as in ingest."""

from __future__ import annotations

import json
from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError
from journeyman.serving.messages import MAX_MESSAGES, NAME, text_of, text_part
from journeyman.serving.values import known, objects, one_of

_ROLE = one_of("user", "assistant", "system")
_THOUGHTS = ("thinking", "redacted_thinking")
_ALLOWED = {
    "user": ("text", "tool_result"), "assistant": ("text", "tool_use", *_THOUGHTS), "system": ("text",),
}  # fmt: skip


def read_turns(value: Any, ignored: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The turns, and where each stands in the request.

    Raises:
        RequestError: names the message and its field.
    """
    turns: list[dict[str, Any]] = []
    places: list[str] = []
    for index, message in enumerate(objects(value, "messages", MAX_MESSAGES)):
        param = f"messages[{index}]"
        given = known(message, param, ("role", "content"), ignored)
        role = _ROLE(given.get("role"), f"{param}.role")
        if "content" not in given:
            raise RequestError(400, f"{param}.content is missing", f"{param}.content")
        read = _turns(role, given["content"], f"{param}.content", ignored)
        turns += read
        places += [f"{param}.content"] * len(read)
    return turns, places


def _turns(role: str, content: Any, param: str, ignored: list[str]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    texts: list[str] = []
    results: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(objects(content, param, MAX_MESSAGES)):
        place, kind = f"{param}[{index}]", block.get("type")
        if kind not in _ALLOWED[role]:
            raise _unknown(place, kind, role)
        if kind == "text":
            texts.append(_text(block, place, ignored))
        elif kind == "tool_result":
            results.append(_result(block, place, ignored))
        elif kind == "tool_use":
            calls.append(_call(block, place, ignored))
        elif "messages.content.thinking" not in ignored:
            ignored.append("messages.content.thinking")
    if results and not texts:
        return results
    turn: dict[str, Any] = {"role": role, "content": "".join(texts)}
    return [*results, {**turn, "tool_calls": calls} if calls else turn]


def _text(block: dict[str, Any], param: str, ignored: list[str]) -> str:
    return text_part(
        {name: one for name, one in block.items() if name != "citations" or one}, param, ignored, ("text",)
    )


def _result(block: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(block, param, ("type", "tool_use_id", "content", "is_error"), ignored)
    if given.get("is_error") and "messages.content.is_error" not in ignored:
        ignored.append("messages.content.is_error")  # the text says what failed, as in the training data
    content = text_of(given["content"], f"{param}.content", ignored, ("text",)) if given.get("content") else ""
    return {"role": "tool", "content": content, "tool_call_id": NAME(given.get("tool_use_id"), f"{param}.tool_use_id")}


def _call(block: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(block, param, ("type", "id", "name", "input"), ignored)
    if not isinstance(given.get("input", {}), dict):
        raise RequestError(400, f"{param}.input must be an object", f"{param}.input")
    arguments = json.dumps(given.get("input", {}), ensure_ascii=False)
    function = {"name": NAME(given.get("name"), f"{param}.name"), "arguments": arguments}
    return {"id": NAME(given.get("id"), f"{param}.id"), "type": "function", "function": function}


def _unknown(param: str, kind: Any, role: str) -> RequestError:
    shown = plain(kind, 40) if isinstance(kind, str) else "another type"
    allowed = ", ".join(_ALLOWED[role])
    return RequestError(
        400, f"{param}.type of a {role} message must be one of {allowed}, not {shown}: images and files are not "
        "supported", f"{param}.type", "unsupported_parameter",
    )  # fmt: skip
