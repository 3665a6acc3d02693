"""Defensive readers for what log formats have in common: content parts, tool calls, numbers and times.

The message shape is OpenAI's (platform.openai.com/docs/api-reference/chat); other formats are converted to it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.reasons.files import SourceReason
from journeyman.records import ToolCall

FINISH_REASONS = {
    "stop": "stop end_turn stop_sequence eos eos_token end complete completed done finished finish_reason_stop",
    "length": "length max_tokens max_output_tokens model_length max_length max_new_tokens token_limit context_length"
    " model_context_window_exceeded context_length_exceeded finish_reason_max_tokens max_tokens_reached pause_turn",
    "tool_calls": "tool_calls tool_use tool_call function_call function_calls",
    "content_filter": "content_filter content_filtered safety finish_reason_safety recitation prohibited_content"
    " blocklist spii image_safety guardrail_intervened language",
    "refusal": "refusal",
    "error": "error malformed_function_call unexpected_tool_call insufficient_system_resource error_toxic failed",
    "cancelled": "cancelled canceled abort aborted user_cancelled error_limit",
}
"""Our word → those of OpenAI, Anthropic, Google, Mistral, Cohere, DeepSeek, Bedrock, Vercel, vLLM and SGLang."""
_FINISH = {word: ours for ours, words in FINISH_REASONS.items() for word in words.split()}
_NO_FINISH = ("other", "unknown", "finish_reason_unspecified", "unspecified", "none", "null", "")
_MAX_ENCODINGS = 3


class NotAnInteraction(Exception):
    """Why a row cannot become an interaction.

    Attributes:
        reason: names fields and types, and quotes as little of the row's values as possible.
        line, text: number and beginning of the line in a session's file; None for those of the row.
    """

    def __init__(self, reason: SourceReason, line: int | None = None, text: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line, self.text = reason, line, text

    def __str__(self) -> str:
        return self.reason.sentence()

    def within(self, at: str, line: int | None = None) -> NotAnInteraction:
        """The same reason for something within the row, such as "spans[3]"."""
        return NotAnInteraction(self.reason.within(at), line)


def kind(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def mapping(value: Any) -> dict[str, Any]:
    """The object itself (decoded if it is JSON text), or an empty one."""
    value = decoded(value)
    return value if isinstance(value, dict) else {}


def decoded(value: Any) -> Any:
    """The JSON value in a text that starts like one; anything else unchanged. Undoes repeated encoding."""
    for _ in range(_MAX_ENCODINGS):
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
            break
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            break
    return value


def one_of(value: Any, names: Container[str]) -> bool:
    """Whether the value is one of the names; a list or an object is not."""
    return isinstance(value, str) and value in names


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def whole(value: Any) -> int | None:
    """A positive integer, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else None


def number(value: Any) -> float | None:
    """A finite number of 0 or more, possibly encoded as text, or None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e20 and math.isfinite(value):
        return float(value)
    return None


def first(*values: Any) -> Any:
    """The first value that is neither None nor an empty string."""
    return next((value for value in values if value is not None and value != ""), None)


def iso_time(value: Any) -> str | None:
    """ISO 8601 for an epoch time (in seconds or, judging by its size, a finer unit); text is returned unchanged."""
    if isinstance(value, str) and not value.isdigit():
        return value or None
    seconds = number(value)
    if seconds is None:
        return None
    while seconds > 1e11:  # milliseconds, microseconds and nanoseconds would be after the year 5000
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def epoch_s(value: str | None) -> float | None:
    """Seconds since 1970 for an ISO 8601 time (UTC if it has no time zone), or None."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def between_ms(start: Any, end: Any) -> float | None:
    """Milliseconds from one time to another, or None if either is unknown or they are in the wrong order."""
    begun, ended = epoch_s(iso_time(start)), epoch_s(iso_time(end))
    return None if begun is None or ended is None or ended < begun else (ended - begun) * 1000


def finish_reason(value: Any) -> str | None:
    """The finish reason in OpenAI's words, ignoring case; unknown ones are unchanged, and noted by the reader."""
    if not isinstance(value, str):
        return None
    word = re.sub(r"[\s\-]+", "_", value.strip().lower()).rsplit(".", 1)[-1]  # "FinishReason.STOP", "tool-calls"
    return None if word in _NO_FINISH else _FINISH.get(word, value)


def content_text(value: Any, place: str) -> str:
    """The text of a content field: text, nothing, or a list of text parts.

    Raises:
        NotAnInteraction: a part is an image, audio or a file.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        raise NotAnInteraction(why.WrongType(place, kind(value), "text"))
    return "".join(_part_text(part, f"{place}[{index}]") for index, part in enumerate(value))


def _part_text(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        for key in ("text", "content", "value", "refusal"):
            if isinstance(part.get(key), str):
                return str(part[key])
        raise NotAnInteraction(why.NotText(place, repr(plain(str(part.get("type")), 40))))
    raise NotAnInteraction(why.WrongType(place, kind(part), "a content part"))


def tool_calls(value: Any, place: str) -> list[ToolCall]:
    """Reads tool calls in OpenAI's shape, or flat ones with name and arguments (or args, or input).

    Raises:
        NotAnInteraction: a call has no name.
    """
    value = decoded(value)
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise NotAnInteraction(why.WrongType(place, kind(value), "a list"))
    return [tool_call(one, f"{place}[{index}]") for index, one in enumerate(value)]


def tool_call(value: Any, place: str) -> ToolCall:
    call = mapping(value)
    inner = mapping(call.get("function")) or call
    name = first(inner.get("name"), inner.get("toolName"))
    if not isinstance(name, str) or not name:
        raise NotAnInteraction(why.FieldMissing("name", place))
    arguments: Any = next((inner[key] for key in ("arguments", "args", "input", "parameters") if key in inner), {})
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}  # some models call tools without arguments with no value at all
    return ToolCall(
        name=name,
        arguments=decoded(arguments),
        id=text_or_none(first(call.get("id"), call.get("call_id"), call.get("toolCallId"))),
    )


_SCHEMAS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")


def _definitions(values: list[Any]) -> Iterator[dict[str, Any]]:
    """Yields each definition; Gemini groups them in function_declarations."""
    for one in map(mapping, values):
        inner = first(one.get("function_declarations"), one.get("functionDeclarations"))
        yield from map(mapping, inner) if isinstance(inner, list) else [one]


def tools_of(value: Any) -> list[dict[str, Any]]:
    """Converts tool definitions from OpenAI's, Anthropic's, Gemini's or a flat shape to OpenAI's; keeps all others."""
    value = decoded(value)
    if isinstance(value, dict):
        value = list(value.values())
    tools = []
    for tool in _definitions(value if isinstance(value, list) else []):
        if "function" not in tool and isinstance(tool.get("name"), str):
            schema = first(*(tool.get(name) for name in _SCHEMAS))
            function = {"name": tool["name"], "description": tool.get("description"), "parameters": decoded(schema)}
            tool = {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}
        if tool:
            tools.append(tool)
    return tools


def without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The fields that were not read, for `extra`."""
    return {key: value for key, value in row.items() if key not in names and value not in (None, "", [], {})}


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None; a number is the index in a list, -1 the last."""
    value: Any = row
    for part in path.split("."):
        value = decoded(value)
        if isinstance(value, list) and part.lstrip("-").isdigit():
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            value = mapping(value).get(part)
    return value


def named_role(*places: Any) -> str | None:
    """The agent's role from metadata or tags: agent_role, role, agent, agent_name; "role:x" in tags."""
    for place in map(decoded, places):
        if isinstance(place, list):
            found = next((tag[5:] for tag in place if isinstance(tag, str) and tag.startswith("role:")), None)
            if found:
                return found
        values = mapping(place)
        for key in ("agent_role", "role", "agent", "agent_name"):
            value = values.get(key)
            if isinstance(value, dict):
                value = value.get("role")
            if isinstance(value, str) and value:
                return value
    return None
