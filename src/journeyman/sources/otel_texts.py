"""Finds a call's texts in the spans of each instrumentation.

Source: the GenAI semantic conventions (gen_ai.input.messages since 1.37; before that message events), OpenLLMetry
(gen_ai.prompt.0.content), OpenInference (llm.input_messages.0.message.content), the Vercel AI SDK's telemetry page
(ai.prompt.messages, ai.response.text, ai.response.toolCalls), Logfire and Pydantic AI (request_data and response_data,
events, all_messages_events), and pairs of attributes that contain a whole input and output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.reasons import sources as why
from journeyman.sources.answering import Answer, answers_of
from journeyman.sources.asking import Asked, asked_of, system_turns
from journeyman.sources.events import EVENT_NAMES, events_apart
from journeyman.sources.fields import NotAnInteraction, decoded, first, mapping, tools_of

PAIRS = (
    ("request_data", "response_data"),
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response"),
    ("gen_ai.prompt", "gen_ai.completion"),
    ("input.value", "output.value"),
    ("traceloop.entity.input", "traceloop.entity.output"),
)
"""Attributes that contain a whole input and a whole output."""
_INDEXED = re.compile(r"(?:gen_ai\.(prompt|completion)|llm\.(input_messages|output_messages))\.(\d+)\.(.+)")
_HOLDS_TEXT = re.compile(r"messages?$|prompt|completion|(input|output)s?(\.|$)|request_data|response|events$")
_NO_TEXT = re.compile(r"usage|model|finish|tokens|\.(type|mime_type|id|name|version)$")
Texts = tuple[Asked, list[Answer]]


@dataclass
class _Turn:
    """A turn whose fields are separate attributes."""

    fields: dict[str, Any] = field(default_factory=dict)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def whole(self) -> dict[str, Any]:
        content = _parts_in(self.fields.get("content"))
        given = {key: value for key, value in self.fields.items() if "." not in key}
        parts = [self.parts[index] for index in sorted(self.parts)]
        calls = [self.calls[index] for index in sorted(self.calls)]
        return {**given, "content": content or parts or "", "tool_calls": calls or given.get("tool_calls")}


def texts_of(attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> Texts:
    """The call's input and its answers.

    Raises:
        NotAnInteraction: there is no text, or none in a known place.
    """
    for event in events:
        if event.get("name") == "gen_ai.client.inference.operation.details":
            attributes = {**attributes, **mapping(event.get("attributes"))}
    if attributes.get("gen_ai.input.messages"):
        return _structured(attributes)
    if attributes.get("ai.prompt.messages"):
        return _vercel(attributes)
    for name in ("events", "all_messages_events", "pydantic_ai.all_messages"):
        listed = decoded(attributes.get(name))
        if isinstance(listed, list) and listed:
            return _from_events([mapping(one) for one in listed], name)
    if any(_INDEXED.match(name) for name in attributes):
        return _indexed(attributes)
    if any(event.get("name") in EVENT_NAMES for event in events):
        return _from_events([{**_body(event), "event.name": event.get("name")} for event in events], "events")
    for given, answered in PAIRS:
        if attributes.get(given):
            return asked_of(attributes[given], given), answers_of(attributes.get(answered), answered)
    raise _no_texts(attributes)


def _no_texts(attributes: Mapping[str, Any]) -> NotAnInteraction:
    texts = {name for name, value in attributes.items() if value and isinstance(value, str | list | dict)}
    held = sorted(name for name in texts if _HOLDS_TEXT.search(name) and not _NO_TEXT.search(name))
    if held:
        return NotAnInteraction(why.UnknownFields("a span", ", ".join(held[:4]), "the text of a call"))
    return NotAnInteraction(
        why.NotLogged("a span without any text", "content capture was off when the span was recorded")
    )


def _structured(attributes: Mapping[str, Any]) -> Texts:
    call = asked_of(attributes["gen_ai.input.messages"], "gen_ai.input.messages")
    system = system_turns(attributes.get("gen_ai.system_instructions"), "gen_ai.system_instructions")
    outputs = answers_of(attributes.get("gen_ai.output.messages"), "gen_ai.output.messages")
    return Asked([*system, *call.messages], call.tools), outputs


def _vercel(attributes: Mapping[str, Any]) -> Texts:
    call = asked_of(attributes["ai.prompt.messages"], "ai.prompt.messages")
    listed = decoded(attributes.get("ai.prompt.tools"))
    tools = tools_of([decoded(one) for one in listed] if isinstance(listed, list) else listed)
    said = {name: first(attributes.get(f"ai.response.{name}"), attributes.get(f"ai.result.{name}"))
            for name in ("text", "toolCalls", "object", "reasoning", "finishReason")}  # fmt: skip
    ended = first(said["finishReason"], attributes.get("ai.finishReason"))
    if said["text"] is None and said["toolCalls"] is None:
        return Asked(call.messages, tools), answers_of({"text": said["object"], "finishReason": ended}
                                                       if said["object"] else None, "ai.response.object")  # fmt: skip
    turn = {"role": "assistant", "content": said["text"] or "", "tool_calls": decoded(said["toolCalls"]),
            "reasoning_content": said["reasoning"], "finish_reason": ended}  # fmt: skip
    return Asked(call.messages, tools), answers_of(turn, "ai.response")


def _indexed(attributes: Mapping[str, Any]) -> Texts:
    turns: dict[tuple[bool, int], _Turn] = {}
    for name, value in attributes.items():
        found = _INDEXED.match(name)
        if found:
            answered = (found[1] or found[2]) in ("completion", "output_messages")
            _set(turns.setdefault((answered, int(found[3])), _Turn()), found[4].removeprefix("message."), value)
    given = [turns[key].whole() for key in sorted(turns) if not key[0]]
    answers = [turns[key].whole() for key in sorted(turns) if key[0]]
    call = asked_of(given, "the span's prompt")
    return call, [one for index, turn in enumerate(answers)
                  for one in answers_of({"role": "assistant", **turn}, f"completion.{index}")]  # fmt: skip


def _set(turn: _Turn, path: str, value: Any) -> None:
    call = re.fullmatch(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments|id)", path)
    part = re.fullmatch(r"contents\.(\d+)\.message_content\.(\w+)(\..*)?", path)
    if call:
        turn.calls.setdefault(int(call[1]), {})[call[2]] = value
    elif part:
        held = turn.parts.setdefault(int(part[1]), {})
        held[part[2]] = value
        held.setdefault("type", part[2])
    elif path in ("function_call_name", "function_call_arguments_json"):
        turn.calls.setdefault(0, {})["name" if path.endswith("name") else "arguments"] = value
    else:
        turn.fields[path] = value


def _parts_in(content: Any) -> Any:
    """Decodes OpenLLMetry's list of parts, which is encoded as text."""
    inner = decoded(content)
    listed = isinstance(inner, list) and inner and all(isinstance(one, Mapping) and "type" in one for one in inner)
    return inner if listed else content


def indexed_tools(attributes: Mapping[str, Any]) -> list[Any]:
    """OpenInference (llm.tools.0.tool.json_schema) and OpenLLMetry (llm.request.functions.0.name)."""
    schemas = [v for k, v in sorted(attributes.items()) if re.fullmatch(r"llm\.tools\.\d+\.tool\.json_schema", k)]
    functions: dict[str, dict[str, Any]] = {}
    for name, value in attributes.items():
        found = re.fullmatch(r"llm\.request\.functions\.(\d+)\.(name|description|parameters)", name)
        if found:
            functions.setdefault(found[1], {})[found[2]] = value
    return schemas or [functions[key] for key in sorted(functions)]


def _body(event: Mapping[str, Any]) -> dict[str, Any]:
    held = mapping(event.get("attributes")) | mapping(event.get("body"))
    return {key if key == "gen_ai.message.index" else key.removeprefix("gen_ai."): held[key] for key in held}


def _from_events(events: list[dict[str, Any]], place: str) -> Texts:
    """Reads one event per turn or part of a turn; the last turn of a whole run is its answer."""
    asked, choices = events_apart(events)
    if not choices and len(asked) > 1 and asked[-1].get("role") in ("assistant", "model"):
        choices, asked = [asked[-1]], asked[:-1]
    return asked_of(asked, place), answers_of(choices, f"{place}, choice")
