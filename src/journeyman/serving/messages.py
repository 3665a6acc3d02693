"""Validates the messages and tools of a request field by field and converts them to the form used in training."""

from __future__ import annotations

from typing import Any

from journeyman.foreign import plain
from journeyman.serving.bodies import parsed
from journeyman.serving.errors import RequestError
from journeyman.serving.values import objects, only, text, truth, wrong

MAX_MESSAGES = 2000
MAX_TOOLS = 128
SYSTEM = ("system", "developer")

_ROLES = (*SYSTEM, "user", "assistant", "tool")
_TURN = ("role", "content", "name", "tool_calls", "tool_call_id")
_NOT_READ = ("refusal", "annotations", "reasoning_content", "reasoning", "audio", "function_call")
"""Fields of earlier answers that clients send back; the served models were never trained on them."""
_NAME = text(256)


def read_messages(value: Any, ignored: list[str]) -> list[dict[str, Any]]:
    """The turns with plain text as content, with parts joined as in ingest, and without null fields.

    Args:
        ignored: the names of fields that are set but not used are added to it.

    Raises:
        RequestError: names the message and its field.
    """
    turns = [
        _turn(one, f"messages[{index}]", ignored) for index, one in enumerate(objects(value, "messages", MAX_MESSAGES))
    ]
    said = [turn["role"] for turn in turns if turn["role"] not in SYSTEM]
    if not said or said[-1] == "assistant":
        raise RequestError(400, "messages must end with a user or tool message", "messages")
    return turns


def read_tools(value: Any, ignored: list[str]) -> list[dict[str, Any]]:
    """The tool definitions without null fields and without `strict`, which the engine does not support.

    Raises:
        RequestError: names the tool and its field.
    """
    return [
        {"type": "function", "function": _function(tool, f"tools[{index}]", ignored)}
        for index, tool in enumerate(objects(value, "tools", MAX_TOOLS, least=0))
    ]


def _function(tool: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    if only(tool, param, ("type", "function")).get("type") != "function":
        raise RequestError(400, f'{param}.type must be "function"', f"{param}.type")
    param = f"{param}.function"
    given = only(tool.get("function"), param, ("name", "description", "parameters", "strict"))
    function = {name: value for name, value in given.items() if value is not None}
    _NAME(given.get("name"), f"{param}.name")
    if "description" in function:
        text(1 << 16, least=0)(function["description"], f"{param}.description")
    if truth(function.pop("strict", False), f"{param}.strict") and "tools.strict" not in ignored:
        ignored.append("tools.strict")
    return function


def _turn(value: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    only(value, param, (*_TURN, *_NOT_READ))
    role = value.get("role")
    if role not in _ROLES:
        shown = plain(role, 40) if isinstance(role, str) else "another type"
        raise RequestError(400, f"{param}.role must be one of {', '.join(_ROLES)}, not {shown}", f"{param}.role")
    for name in ("audio", "function_call"):
        if value.get(name) is not None:
            raise RequestError(400, f"{param}.{name} is not supported", f"{param}.{name}", "unsupported_parameter")
    ignored += [f"messages.{name}" for name in _NOT_READ if value.get(name) and f"messages.{name}" not in ignored]
    turn = {"role": role, "content": _content(value.get("content"), f"{param}.content")}
    if value.get("tool_calls") is not None:
        turn["tool_calls"] = _calls(value["tool_calls"], role, f"{param}.tool_calls")
    if turn["content"] is None:
        if not turn.get("tool_calls"):
            raise RequestError(400, f"{param}.content is missing", f"{param}.content")
        turn["content"] = ""
    if value.get("tool_call_id") is not None:
        if role != "tool":
            raise RequestError(400, f"{param}.tool_call_id belongs to a tool message", f"{param}.tool_call_id")
        turn["tool_call_id"] = _NAME(value["tool_call_id"], f"{param}.tool_call_id")
    if value.get("name") is not None:
        turn["name"] = _NAME(value["name"], f"{param}.name")
    return turn


def _content(value: Any, param: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(param, "text or a list of text parts", value)
    return "".join(_part(one, f"{param}[{index}]") for index, one in enumerate(objects(value, param, MAX_MESSAGES)))


def _part(value: dict[str, Any], param: str) -> str:
    kind = value.get("type")
    if kind not in ("text", "refusal"):
        shown = plain(kind, 40) if isinstance(kind, str) else "another type"
        raise RequestError(
            400, f"{param}.type must be text, not {shown}: images, audio and files are not supported",
            f"{param}.type", "unsupported_parameter",
        )  # fmt: skip
    found = only(value, param, ("type", kind)).get(kind)
    if not isinstance(found, str):
        raise wrong(f"{param}.{kind}", "text", found)
    return found


def _calls(value: Any, role: str, param: str) -> list[dict[str, Any]]:
    if role != "assistant":
        raise RequestError(400, f"{param} belongs to an assistant message", param)
    return [_call(one, f"{param}[{index}]") for index, one in enumerate(objects(value, param, MAX_TOOLS, least=0))]


def _call(value: dict[str, Any], param: str) -> dict[str, Any]:
    if only(value, param, ("id", "type", "function", "index")).get("type", "function") != "function":
        raise RequestError(400, f'{param}.type must be "function"', f"{param}.type")
    function = only(value.get("function"), f"{param}.function", ("name", "arguments"))
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        raise wrong(f"{param}.function.arguments", "text (JSON, encoded once)", arguments)
    arguments = arguments if arguments.strip() else "{}"
    parsed(arguments.encode(), f"{param}.function.arguments")
    named = {"name": _NAME(function.get("name"), f"{param}.function.name"), "arguments": arguments}
    call = {"type": "function", "function": named}
    return call if value.get("id") is None else {"id": _NAME(value["id"], f"{param}.id"), **call}
