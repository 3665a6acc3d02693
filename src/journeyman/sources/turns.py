"""Converts logged turns in any dialect to OpenAI's shape: content, tool calls, tool results and reasoning.

Dialects: OpenAI's chat completions and Responses items, Anthropic's blocks, the parts of OpenTelemetry's GenAI
conventions, of the Vercel AI SDK (tool-call, tool-result), of Gemini (functionCall, functionResponse), LLaMA-Factory's
{type, value} and LangChain's additional_kwargs. Anything else is rejected by name, never silently dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Message, ToolCall
from journeyman.sources.fields import NotAnInteraction, decoded, first, kind, mapping, text_or_none, tool_call

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "ai": "assistant", "model": "assistant", "gpt": "assistant", "chatbot": "assistant", "tool": "tool",
    "function": "tool", "tool-response": "tool", "tool_response": "tool", "tool-result": "tool", "tool_result": "tool",
    "function_response": "tool", "observation": "tool", "ipython": "tool", "tool-call": "assistant",
    "tool_call": "assistant", "function_call": "assistant", "function-call": "assistant",
}  # fmt: skip
"""Role words of all dialects → the four that chat templates know."""
_CALL_ROLES = ("tool-call", "tool_call", "function_call", "function-call")
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal", "summary_text", "text_delta")
_CALL_PARTS = ("tool_use", "tool_call", "tool-call", "function_call", "function", "functionCall", "server_tool_use")
_RESULT_PARTS = (
    "tool_result", "tool-result", "tool_call_response", "tool_response", "function_call_output", "functionResponse",
)  # fmt: skip
_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_content", "thought")
_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "name", "function_call", "parts", "type", "toolCalls"}
LOST = ("None", "null", "undefined", "NaN", "nan")
"""What remains in the text field of an assistant turn if a log could not write its call."""


@dataclass
class _Read:
    """The contents of a turn's parts."""

    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)


def turns_of(value: Any, place: str) -> list[Message]:
    """The turns of one logged message: tool results first, then its text and calls.

    Raises:
        NotAnInteraction: the role is missing or unknown, a part is not text, or an assistant turn lost its content.
    """
    if not isinstance(value, Mapping):
        raise NotAnInteraction(why.WrongType(place, kind(value), "an object"))
    if (plain_turn := _plain_turn(value)) is not None:
        return [plain_turn]
    logged, role = _role(value, place)
    read = _Read()
    content = value.get("content", value.get("parts"))
    _read_content(content, f"{place}.content", read)
    read.thoughts += _thoughts(value)
    read.calls = _with_calls(read.calls, _calls_of(value, place))
    if logged in _CALL_ROLES:
        read.calls, read.text = _with_calls(read.calls, _calls_in_text(read.text, place)), []
    text = "".join(read.text)
    if role == "assistant":
        _refuse_lost(content, text, read, place)
    elif content is None and not read.results:
        raise NotAnInteraction(why.FieldMissing("content", place))
    if read.results and not text and not read.calls:
        return read.results
    return [*read.results, _message(value, role, text, read)]


def _message(value: Mapping[str, Any], role: str, text: str, read: _Read) -> Message:
    extra = {key: inner for key, inner in value.items() if key not in _FIELDS and inner not in (None, [], {})}
    if read.thoughts:
        extra["reasoning_content"] = "\n".join(read.thoughts)
    return Message(
        role=role,
        content=text,
        tool_calls=read.calls,
        tool_call_id=text_or_none(first(value.get("tool_call_id"), value.get("toolCallId")))
        if role == "tool"
        else None,
        name=text_or_none(value.get("name")),
        extra=extra,
    )


def _plain_turn(value: Mapping[str, Any]) -> Message | None:
    """The fast path for most turns of most logs, which have a role, a text and nothing else."""
    role, content = value.get("role"), value.get("content")
    if len(value) != 2 or not isinstance(role, str) or not isinstance(content, str):
        return None
    if role not in ("user", "system", "assistant") or (role == "assistant" and len(content) < 12):
        return None
    return Message(role=role, content=content)


def _role(value: Mapping[str, Any], place: str) -> tuple[str, str]:
    """The logged role and journeyman's."""
    role = value.get("role")
    if not isinstance(role, str) or not role:
        raise NotAnInteraction(why.FieldMissing("role", place))
    known = ROLES.get(role.lower())
    if known is None:
        raise NotAnInteraction(why.UnknownRole(f"{place}.role", plain(role, 40)))
    return role.lower(), known


def _refuse_lost(content: Any, text: str, read: _Read, place: str) -> None:
    """Rejects the text "None", which logs write for an answer that was a call: it must never be trained on."""
    if text.strip() in LOST and not read.calls:
        raise NotAnInteraction(why.AnswerLost(f"{place}.content", text.strip()))


def _read_content(content: Any, place: str, read: _Read) -> None:
    if content is None:
        return
    if isinstance(content, str):
        read.text.append(content)
        return
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise NotAnInteraction(why.WrongType(place, kind(content), "text"))
    for index, part in enumerate(content):
        _read_part(part, f"{place}[{index}]", read)


def _read_part(part: Any, place: str, read: _Read) -> None:
    if isinstance(part, str):
        read.text.append(_text_in(part, read))
        return
    if not isinstance(part, Mapping):
        raise NotAnInteraction(why.WrongType(place, kind(part), "a content part"))
    name = _part_type(part)
    if name in _CALL_PARTS:
        read.calls.append(_called(part, place))
    elif name in _RESULT_PARTS:
        read.results.append(_result(part, place))
    elif name in _THOUGHT_PARTS:
        read.thoughts.append(_first_text(part, "thinking", "reasoning", "text", "content", "value", "thought"))
    elif name in _TEXT_PARTS or name == "":
        read.text.append(_part_text(part, place))
    else:
        raise NotAnInteraction(why.NotText(place, repr(plain(name, 40))))


def _text_in(part: str, read: _Read) -> str:
    """Reads a text part that is itself a JSON list of parts, as some exporters write."""
    inner = decoded(part)
    if isinstance(inner, Mapping) and inner.get("type") in (*_TEXT_PARTS, *_CALL_PARTS, *_RESULT_PARTS):
        _read_part(inner, "a JSON text part", read)
        return ""
    return part


def _part_type(part: Mapping[str, Any]) -> str:
    """The part's type; Gemini's parts have none and are recognized by their fields."""
    if part.get("thought") is True:
        return "thought"
    for name in ("functionCall", "functionResponse", "function_call", "function_response"):
        if "type" not in part and isinstance(part.get(name), Mapping):
            return {"function_call": "functionCall", "function_response": "functionResponse"}.get(name, name)
    kind_ = part.get("type", "")
    if not kind_ and not any(isinstance(part.get(key), str) for key in ("text", "content", "value", "refusal")):
        return next(iter(part), "") or "empty"
    return kind_ if isinstance(kind_, str) else kind(kind_)


def _part_text(part: Mapping[str, Any], place: str) -> str:
    for key in ("text", "content", "value", "refusal"):
        if isinstance(part.get(key), str):
            return str(part[key])
        if isinstance(part.get(key), Mapping) and isinstance(part[key].get("value"), str):
            return str(part[key]["value"])  # OpenAI's Assistants: {"text": {"value": …}}
    raise NotAnInteraction(why.FieldMissing("text", f"the text part {place}"))


def _called(part: Mapping[str, Any], place: str) -> ToolCall:
    inner = mapping(first(part.get("functionCall"), part.get("function_call"), part.get("value"))) or dict(part)
    if "function" in inner:
        return tool_call(inner, place)
    if not inner.get("input") and isinstance(inner.get("partial_json"), str):
        inner = {**inner, "input": inner["partial_json"]}  # Anthropic's stream, joined by LangChain
    return tool_call(
        {**inner, "name": first(inner.get("name"), inner.get("toolName"), inner.get("tool_name")),
         "id": first(inner.get("call_id"), inner.get("toolCallId"), inner.get("tool_call_id"), inner.get("id"))},
        place,
    )  # fmt: skip


def _result(part: Mapping[str, Any], place: str) -> Message:
    inner = mapping(first(part.get("functionResponse"), part.get("function_response"))) or dict(part)
    given = next((inner[key] for key in ("content", "output", "result", "response", "value") if key in inner), None)
    flags = {"is_error": True} if first(inner.get("is_error"), inner.get("isError"), False) is True else {}
    ids = (inner.get(key) for key in ("tool_use_id", "call_id", "toolCallId", "tool_call_id", "id"))
    return Message(
        role="tool",
        content=result_text(given, place),
        tool_call_id=text_or_none(first(*ids)),
        name=text_or_none(first(inner.get("name"), inner.get("toolName"))),
        extra=flags,
    )


def result_text(value: Any, place: str) -> str:
    """A tool result as text: parts are joined, other JSON is encoded.

    Raises:
        NotAnInteraction: a part is an image, audio or a file.
    """
    if value is None or isinstance(value, str):
        return value or ""
    typed = isinstance(value, Mapping) and value.get("type") in ("text", "json", "error-text", "error-json", "content")
    if typed and "value" in value:  # Vercel's {"type": "json", "value": …}
        return result_text(value["value"], place)
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "type" in one for one in value):
        read = _Read()
        _read_content(value, place, read)
        if not read.calls and not read.results:
            return "".join(read.text)
    return json.dumps(value, ensure_ascii=False)


def _thoughts(value: Mapping[str, Any]) -> Iterator[str]:
    for key in ("reasoning_content", "reasoning", "thinking", "thought", "thoughts"):
        if isinstance(value.get(key), str) and value[key]:
            yield value[key]
            return


def _first_text(part: Mapping[str, Any], *names: str) -> str:
    return next((part[name] for name in names if isinstance(part.get(name), str)), "")


def _calls_of(value: Mapping[str, Any], place: str) -> list[ToolCall]:
    """Calls in separate fields, including LangChain's additional_kwargs."""
    more = mapping(value.get("additional_kwargs"))
    listed = first(value.get("tool_calls") or None, value.get("toolCalls") or None, more.get("tool_calls") or None)
    listed = decoded(listed)
    if listed is not None and not isinstance(listed, list):
        raise NotAnInteraction(why.WrongType(f"{place}.tool_calls", kind(listed), "a list"))
    calls = [tool_call(one, f"{place}.tool_calls[{index}]") for index, one in enumerate(listed or [])]
    single = first(value.get("function_call") or None, more.get("function_call") or None)
    if single and not calls:
        calls.append(tool_call(single, f"{place}.function_call"))
    return calls


def _with_calls(known: list[ToolCall], more: list[ToolCall]) -> list[ToolCall]:
    """Merges calls that are logged in a part and in a field; if one lacks arguments, the other has them."""
    given = {call.id: call for call in more if call.id and call.arguments}
    known = [call if call.arguments else given.get(call.id or "", call) for call in known]
    ids = {call.id for call in known if call.id}
    same = [(call.name, json.dumps(call.arguments, sort_keys=True, default=str)) for call in known]
    new = []
    for call in more:
        signature = (call.name, json.dumps(call.arguments, sort_keys=True, default=str))
        if call.id in ids or (signature in same and not (call.id and ids)):
            continue
        new.append(call)
    return [*known, *new]


def _calls_in_text(texts: list[str], place: str) -> list[ToolCall]:
    """Reads a turn of the role tool-call, whose content is one or several calls as JSON."""
    value = decoded("".join(texts))
    if isinstance(value, str) and value:
        raise NotAnInteraction(why.FieldNotJson(f"{place}.content of a tool call"))
    return [
        tool_call(one, f"{place}.content") for one in (value if isinstance(value, list) else [value] if value else [])
    ]


def chat_message(value: Any, place: str) -> Message:
    """A message that is a single turn, without tool results in its parts.

    Raises:
        NotAnInteraction: as turns_of, or it is several turns.
    """
    turns = turns_of(value, place)
    if len(turns) != 1:
        raise NotAnInteraction(why.NotAnAnswer(place, f"{len(turns)} turns in one (tool results next to a text)"))
    return turns[0]


def chat_messages(value: Any, place: str) -> list[Message]:
    """A conversation in any dialect; plain text is one user turn.

    Raises:
        NotAnInteraction: it is not a conversation, has no user turn, or lacks its beginning.
    """
    value = decoded(value)
    if isinstance(value, str) and value:
        return [Message(role="user", content=value)]
    if not isinstance(value, list):
        raise NotAnInteraction(why.WrongType(place, kind(value), "a list of messages"))
    return asked([turn for index, one in enumerate(value) for turn in turns_of(one, f"{place}[{index}]")], place)


def asked(messages: list[Message], place: str) -> list[Message]:
    """The messages, checked: a model can answer them, and their history is complete.

    Raises:
        NotAnInteraction: there is no user turn, a role is unknown to templates, or a tool result lacks its call.
    """
    if not any(message.role in ("user", "tool") for message in messages):
        raise NotAnInteraction(why.NoUserMessage(place))
    known: set[str | None] = set()
    answered = called = False
    for index, message in enumerate(messages):
        if message.role not in ("system", "user", "assistant", "tool"):
            raise NotAnInteraction(why.UnknownRole(f"{place}[{index}].role", plain(message.role, 40)))
        if message.role == "tool" and (not answered or _is_orphan(message, known, called)):
            raise NotAnInteraction(why.HistoryBroken("orphan_result", f"{place}[{index}]"))
        answered = answered or message.role == "assistant"
        called = called or bool(message.tool_calls)
        known.update(call.id for call in message.tool_calls)
    return messages


def _is_orphan(message: Message, known: set[str | None], called: bool) -> bool:
    """A result that names a call that no earlier turn made; if calls are in the text, ids are ignored."""
    return message.tool_call_id is not None and called and None not in known and message.tool_call_id not in known
