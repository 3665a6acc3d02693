"""Hermes function calling: tools, calls and results in tags inside the texts of a conversation.

Source: the dataset card and prompt format of NousResearch's Hermes function calling (`<tools>`, `<tool_call>`,
`<tool_response>`), which Qwen's chat templates also write. It is not a format by itself, but occurs in ShareGPT rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Message, ToolCall
from journeyman.sources.fields import NotAnInteraction, decoded, tool_call, tools_of

_TOOLS = re.compile(r"[ \t]*<tools>\s*(?P<inside>[\[{].*?)\s*</tools>[ \t]*\n?", re.DOTALL)
_CALL = re.compile(r"<tool_call>(?P<inside>.*?)</tool_call>", re.DOTALL)
_RESULT = re.compile(r"^\s*<tool_response>\s*(?P<inside>.*?)\s*</tool_response>\s*$", re.DOTALL)


def structured(messages: Sequence[Message]) -> tuple[list[Message], list[dict[str, Any]]]:
    """Returns the conversation without the tags, and the tools that its system prompts define.

    The base's template writes tools and calls in its own form. A conversation without these tags is not changed.

    Raises:
        NotAnInteraction: the content of a tag is not JSON.
    """
    tools: list[dict[str, Any]] = []
    turns = []
    for index, message in enumerate(messages):
        if message.role == "system" and (found := _TOOLS.search(message.content)):
            tools += _defined(found["inside"], index)
            message = message.model_copy(update={"content": _TOOLS.sub("", message.content, count=1).rstrip()})
        elif message.role == "assistant" and _CALL.search(message.content):
            message = _with_calls(message, index)
        elif message.role == "tool" and (result := _RESULT.match(message.content)):
            message = message.model_copy(update={"content": result["inside"]})
        turns.append(message)
    return turns, tools


def _defined(text: str, index: int) -> list[dict[str, Any]]:
    """Reads one JSON list, or definitions one after the other."""
    value, decoder, place, found = decoded(text.strip()), json.JSONDecoder(), 0, []
    if isinstance(value, list):
        return tools_of(value)
    text = text.strip()
    try:
        while place < len(text):
            one, end = decoder.raw_decode(text, place)
            found.append(one)
            place = end + len(text[end:]) - len(text[end:].lstrip(", \t\r\n"))
    except ValueError as error:
        raise NotAnInteraction(why.FieldNotJson("<tools>", plain(str(error), 120), at=f"turn {index}")) from error
    return tools_of(found)


def _with_calls(message: Message, index: int) -> Message:
    calls: list[ToolCall] = []
    for found in _CALL.finditer(message.content):
        value = decoded(found["inside"].strip())
        if not isinstance(value, dict):
            raise NotAnInteraction(why.FieldNotJson("<tool_call>", at=f"turn {index}"))
        calls.append(tool_call(value, f"turn {index}.tool_call"))
    rest = _CALL.sub("", message.content).strip()
    return message.model_copy(update={"content": rest, "tool_calls": [*message.tool_calls, *calls]})
