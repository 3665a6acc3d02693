"""Converts the input of a traced call, in any dialect, to messages and tools.

Tracing tools store what the program passed to its client: a list of turns, a request of OpenAI (chat or Responses), of
Anthropic ({system, messages}), of Gemini ({contents, config}), LangChain's messages, or the arguments of a decorated
function ({args, kwargs}). Langfuse's LangChain handler logs the tools as turns: role tool, content a definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Message
from journeyman.sources.events import are_events, events_apart
from journeyman.sources.fields import NotAnInteraction, decoded, first, mapping, tools_of, without
from journeyman.sources.langchain import as_turn
from journeyman.sources.openai_chat import items_as_messages
from journeyman.sources.turns import asked, chat_messages, turns_of

_CONVERSATIONS = ("messages", "contents", "input", "prompt", "prompts", "message")
_SYSTEMS = ("system", "instructions", "system_prompt", "systemInstruction", "system_instruction")
_TOOLS = ("tools", "functions", "tool_definitions")
_ENVELOPES = ("kwargs", "body", "request", "json", "params")
_ITEMS = ("function_call", "function_call_output", "reasoning", "item_reference")
_READ = (*_CONVERSATIONS, *_SYSTEMS, *_TOOLS)


@dataclass(frozen=True)
class Asked:
    """A call's input.

    Attributes:
        settings: the other fields of the request: model, max_tokens, …
    """

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def asked_of(value: Any, place: str) -> Asked:
    """Reads the input of a call.

    Raises:
        NotAnInteraction: it is missing, not a conversation, or without its beginning.
    """
    value = decoded(value)
    if value in (None, "", [], {}):
        raise NotAnInteraction(why.FieldEmpty(place, "the call's input was not recorded"))
    if isinstance(value, Mapping):
        return _request(value, place)
    if isinstance(value, list):
        value = events_apart([mapping(one) for one in value])[0] if are_events(value) else value
        turns, tools = _without_definitions(_unnested(value, place))
        return Asked(_conversation(turns, place), tools)
    return Asked(chat_messages(value, place))


def _unnested(value: list[Any], place: str) -> list[Any]:
    """Reads a list; LangChain logs batches ([[turn, …]]), and a single text is a prompt."""
    if all(isinstance(one, list) for one in value):
        if len(value) > 1:
            raise NotAnInteraction(why.SeveralInOne(place, len(value), "conversations of one batch"))
        return _unnested(value[0], place) if value[0] else value[0]
    if all(isinstance(one, str) for one in value):
        if len(value) > 1:
            raise NotAnInteraction(why.SeveralInOne(place, len(value), "prompts of one batch"))
        return [{"role": "user", "content": value[0]}]
    return value


def _request(value: Mapping[str, Any], place: str) -> Asked:
    if first(value.get("previous_response_id"), value.get("previousResponseId")):
        raise NotAnInteraction(why.EarlierResponse(f"{place}.previous_response_id"))
    name = next((key for key in _CONVERSATIONS if value.get(key) not in (None, "", [], {})), None)
    if name is None or ("role" in value and name == "message"):
        return _no_conversation(value, place)
    found = asked_of(value[name], f"{place}.{name}")
    config = mapping(first(value.get("config"), value.get("generationConfig"), value.get("invocation_params")))
    system = next((place_[key] for place_ in (value, config) for key in _SYSTEMS if place_.get(key)), None)
    messages = [*system_turns(system, place), *found.messages]
    tools = next((place_[key] for place_ in (value, config) for key in _TOOLS if place_.get(key)), None)
    return Asked(messages, [*found.tools, *tools_of(tools)], {**without(value, *_READ), **found.settings})


def _no_conversation(value: Mapping[str, Any], place: str) -> Asked:
    """Reads a single turn, or an envelope around the request."""
    turn = as_turn(value)
    if "role" in turn:
        return Asked(_conversation([turn], place))
    for name in _ENVELOPES:
        if mapping(value.get(name)):
            return asked_of(value[name], f"{place}.{name}")
    arguments = value.get("args")
    if isinstance(arguments, list) and arguments:
        return asked_of(arguments[0], f"{place}.args[0]")
    named = ", ".join(repr(plain(str(key), 30)) for key in list(value)[:6])
    raise NotAnInteraction(why.UnknownFields(place, named, "a conversation"))


def system_turns(value: Any, place: str) -> list[Message]:
    """The system prompt next to a conversation, as text, parts or a turn."""
    value = decoded(value)
    if not value:
        return []
    if isinstance(value, Mapping):
        value = first(value.get("parts"), value.get("content"), [dict(value)])
    return turns_of({"role": "system", "content": value}, f"{place}.system")


def _conversation(values: list[Any], place: str) -> list[Message]:
    if any(isinstance(one, Mapping) and "role" not in one and one.get("type") in _ITEMS for one in values):
        return asked(items_as_messages(values, place), place)
    turns = [as_turn(decoded(one)) for one in values]
    return asked([turn for index, one in enumerate(turns) for turn in turns_of(one, f"{place}[{index}]")], place)


def _without_definitions(values: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Separates the turns from tool definitions among them."""
    turns: list[Any] = []
    tools: list[dict[str, Any]] = []
    for one in values:
        definition = _definition(one)
        if definition:
            tools += tools_of(definition)
        else:
            turns.append(one)
    return turns, tools


def _definition(value: Any) -> list[Any]:
    """The definitions in a turn of role tool; a tool result has none, even if it is JSON."""
    if not isinstance(value, Mapping) or value.get("role") != "tool" or value.get("tool_call_id"):
        return []
    content = decoded(value.get("content"))
    listed = content if isinstance(content, list) else [content]
    return listed if listed and all(_is_definition(mapping(one)) for one in listed) else []


def _is_definition(value: Mapping[str, Any]) -> bool:
    function = mapping(value.get("function")) or value
    if value.get("type") == "function" and isinstance(function.get("name"), str):
        return True
    schema = first(function.get("parameters"), function.get("input_schema"), function.get("inputSchema"))
    return isinstance(function.get("name"), str) and isinstance(schema, Mapping)
