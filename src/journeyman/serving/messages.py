"""Validates the messages and tools of a request field by field and converts them to the form used in training."""

from __future__ import annotations

from typing import Any

from journeyman.foreign import plain
from journeyman.serving.bodies import parsed
from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.bounds import without_large_bounds
from journeyman.serving.values import known, objects, one_of, text, truth, wrong

MAX_MESSAGES = 2000
MAX_TOOLS = 128
SYSTEM = ("system", "developer")

TEXT_PARTS = ("text", "refusal")
NAME = text(256)
_ROLE = one_of(*SYSTEM, "user", "assistant", "tool")
_TURN = ("role", "content", "name", "tool_calls", "tool_call_id")
_EMPTY: tuple[Any, ...] = ([], "", {})


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
    check_last(turns, "messages")
    return turns


def check_last(turns: list[dict[str, Any]], param: str) -> None:
    """Raises a RequestError if there is nothing that a model could answer."""
    said = [turn["role"] for turn in turns if turn["role"] not in SYSTEM]
    if not said or said[-1] == "assistant":
        raise RequestError(400, f"{param} must end with a user or tool message", param)


def text_of(value: Any, param: str, ignored: list[str], kinds: tuple[str, ...] = TEXT_PARTS) -> str:
    """The text of a content field: text, or a list of text parts, which are joined as in ingest.

    Args:
        kinds: the types of text parts.

    Raises:
        RequestError: another type, or a part that is an image, audio or a file.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(param, "text or a list of text parts", value)
    parts = enumerate(objects(value, param, MAX_MESSAGES))
    return "".join(text_part(one, f"{param}[{index}]", ignored, kinds) for index, one in parts)


def text_part(value: dict[str, Any], param: str, ignored: list[str], kinds: tuple[str, ...] = TEXT_PARTS) -> str:
    """The text of a part, which is in `refusal` for a refusal and in `text` for all others."""
    kind = value.get("type")
    if kind not in kinds:
        shown = plain(kind, 40) if isinstance(kind, str) else "another type"
        raise RequestError(
            400, f"{param}.type must be {' or '.join(kinds)}, not {shown}: images, audio and files are not supported",
            f"{param}.type", "unsupported_parameter",
        )  # fmt: skip
    name = "refusal" if kind == "refusal" else "text"
    found = known(value, param, ("type", name), ignored).get(name)
    if not isinstance(found, str):
        raise wrong(f"{param}.{name}", "text", found)
    return found


def arguments_text(value: Any, param: str) -> str:
    """A call's arguments: JSON in text; empty text is an empty object.

    Raises:
        RequestError: not JSON.
    """
    if not isinstance(value, str):
        raise wrong(param, "text (JSON, encoded once)", value)
    value = value if value.strip() else "{}"
    parsed(value.encode(), param)
    return str(value)


def read_function(given: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    """A tool's definition from its name, description and JSON schema, without `strict`, which the engine does not
    support.

    Raises:
        RequestError: names the field.
    """
    function = known(given, param, ("name", "description", "parameters", "strict"), ignored)
    NAME(function.get("name"), f"{param}.name")
    if "description" in function:
        text(1 << 16, least=0)(function["description"], f"{param}.description")
    if "parameters" in function:
        function["parameters"] = without_large_bounds(function["parameters"], param, ignored)
    if truth(function.pop("strict", False), f"{param}.strict") and "tools.strict" not in ignored:
        ignored.append("tools.strict")
    return {"type": "function", "function": function}


def read_tools(value: Any, ignored: list[str]) -> list[dict[str, Any]]:
    """The tool definitions without null fields.

    Raises:
        RequestError: names the tool and its field.
    """
    return [
        _tool(one, f"tools[{index}]", ignored) for index, one in enumerate(objects(value, "tools", MAX_TOOLS, least=0))
    ]


def _tool(value: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    tool = known(value, param, ("type", "function"), ignored)
    if tool.get("type") != "function":
        raise RequestError(400, f'{param}.type must be "function"', f"{param}.type")
    return read_function(tool.get("function"), f"{param}.function", ignored)  # type: ignore[arg-type]


def _turn(value: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    for name in ("audio", "function_call"):
        if value.get(name) is not None:
            raise RequestError(400, f"{param}.{name} is not supported", f"{param}.{name}", "unsupported_parameter")
    # What earlier answers contain and clients send back is often empty: annotations, refusal.
    given = known(
        {name: one for name, one in value.items() if one not in _EMPTY or name in _TURN}, param, _TURN, ignored
    )
    role = _ROLE(given.get("role"), f"{param}.role")
    turn: dict[str, Any] = {"role": role, "content": ""}
    if "content" in given:
        turn["content"] = text_of(given["content"], f"{param}.content", ignored)
    elif not given.get("tool_calls"):
        raise RequestError(400, f"{param}.content is missing", f"{param}.content")
    if "tool_calls" in given:
        turn["tool_calls"] = _calls(given["tool_calls"], role, f"{param}.tool_calls", ignored)
    if "tool_call_id" in given:
        if role != "tool":
            raise RequestError(400, f"{param}.tool_call_id belongs to a tool message", f"{param}.tool_call_id")
        turn["tool_call_id"] = NAME(given["tool_call_id"], f"{param}.tool_call_id")
    if "name" in given:
        turn["name"] = NAME(given["name"], f"{param}.name")
    return turn


def _calls(value: Any, role: str, param: str, ignored: list[str]) -> list[dict[str, Any]]:
    if role != "assistant":
        raise RequestError(400, f"{param} belongs to an assistant message", param)
    calls = objects(value, param, MAX_TOOLS, least=0)
    return [_call(one, f"{param}[{index}]", ignored) for index, one in enumerate(calls)]


def _call(value: dict[str, Any], param: str, ignored: list[str]) -> dict[str, Any]:
    given = known(value, param, ("id", "type", "function", "index"), ignored)
    if given.get("type", "function") != "function":
        raise RequestError(400, f'{param}.type must be "function"', f"{param}.type")
    function = known(given.get("function"), f"{param}.function", ("name", "arguments"), ignored)
    arguments = arguments_text(function.get("arguments"), f"{param}.function.arguments")
    named = {"name": NAME(function.get("name"), f"{param}.function.name"), "arguments": arguments}
    call = {"type": "function", "function": named}
    return {"id": NAME(given["id"], f"{param}.id"), **call} if "id" in given else call
