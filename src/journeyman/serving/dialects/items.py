"""Input items of the Responses API as turns: calls join the assistant's turn before them, as in ingest."""

from __future__ import annotations

from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError
from journeyman.serving.messages import MAX_MESSAGES, NAME, SYSTEM, arguments_text, text_of
from journeyman.serving.values import known, objects, one_of

_PARTS = ("input_text", "output_text", "text", "refusal", "summary_text")
_ROLE = one_of(*SYSTEM, "user", "assistant")
_MOST_ITEMS = 2 * MAX_MESSAGES
_REPEATED = ("id", "status", "phase")
"""Fields of the server's own items, which clients send back and which say nothing to the model."""


def read_items(value: Any, ignored: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The turns, and where each stands in the request.

    Raises:
        RequestError: names the item and its field.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}], ["input"]
    turns: list[dict[str, Any]] = []
    places: list[str] = []
    for index, item in enumerate(objects(value, "input", _MOST_ITEMS)):
        param = f"input[{index}]"
        item = {name: one for name, one in item.items() if name not in _REPEATED}
        kind = item.get("type", "message")
        if kind == "function_call":
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": ""})
                places.append(param)
            turns[-1].setdefault("tool_calls", []).append(_call(item, param, ignored))
        elif kind in ("message", "function_call_output"):
            turns.append(_message(item, param, ignored) if kind == "message" else _output(item, param, ignored))
            places.append(param if kind == "function_call_output" else f"{param}.content")
        elif kind == "reasoning":
            if "input.reasoning" not in ignored:
                ignored.append("input.reasoning")
        else:
            shown = plain(kind, 40) if isinstance(kind, str) else "another type"
            raise RequestError(
                400, f"{param}.type must be message, function_call, function_call_output or reasoning, not {shown}",
                f"{param}.type", "unsupported_parameter",
            )  # fmt: skip
    return turns, places


def _message(item: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(item, param, ("type", "role", "content"), ignored)
    role = _ROLE(given.get("role"), f"{param}.role")
    if "content" not in given:
        raise RequestError(400, f"{param}.content is missing", f"{param}.content")
    return {"role": role, "content": text_of(_without_extras(given["content"]), f"{param}.content", ignored, _PARTS)}


def _without_extras(content: Any) -> Any:
    """The content without what the server's own parts contain besides their text."""
    if not isinstance(content, list):
        return content
    extras = ("annotations", "logprobs")
    return [{k: v for k, v in one.items() if k not in extras} if isinstance(one, dict) else one for one in content]


def _call(item: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(item, param, ("type", "call_id", "name", "arguments"), ignored)
    arguments = arguments_text(given.get("arguments"), f"{param}.arguments")
    function = {"name": NAME(given.get("name"), f"{param}.name"), "arguments": arguments}
    return {"id": NAME(given.get("call_id"), f"{param}.call_id"), "type": "function", "function": function}


def _output(item: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(item, param, ("type", "call_id", "output"), ignored)
    content = text_of(given.get("output"), f"{param}.output", ignored, _PARTS)
    return {"role": "tool", "content": content, "tool_call_id": NAME(given.get("call_id"), f"{param}.call_id")}
