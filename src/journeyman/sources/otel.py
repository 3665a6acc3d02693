"""OpenTelemetry GenAI spans: OTLP JSON (resourceSpans) or one span a line.

Source: the GenAI semantic conventions of OpenTelemetry (development; gen_ai.input.messages and
gen_ai.output.messages, since 1.37), their older message events, the indexed attributes of OpenLLMetry
(gen_ai.prompt.0.content), and OpenInference (llm.input_messages.0.message.content).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message, ToolCall
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    content_text,
    decoded,
    finish_reason,
    first,
    iso_time,
    kind,
    mapping,
    one_of,
    text_or_none,
    tool_calls,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.turns import asked, chat_message

_CALLS = ("chat", "text_completion", "generate_content")
_CONTENT = re.compile(
    r"gen_ai\.(system_instructions|input\.messages|output\.messages|tool\.definitions|prompt|completion)(\.|$)"
    r"|llm\.(input_messages|output_messages|tools)\.|(input|output)\.value$"
)
_INDEXED = re.compile(r"(?:gen_ai\.(prompt|completion)|llm\.(input_messages|output_messages))\.(\d+)\.(.+)")
_EVENTS = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    if "resourceSpans" in row or "resource_spans" in row:
        return True
    names = _attributes(row.get("attributes"))
    return any(name.startswith(("gen_ai.", "openinference.", "llm.")) for name in names)


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    """Every span of the row, as an interaction or with the reason why it is none."""
    spans = list(_spans(row))
    if not spans:
        raise NotAnInteraction("no span in resourceSpans")
    for span in spans:
        try:
            yield _interaction(span, place)
        except NotAnInteraction as reason:
            yield reason


def _spans(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    resources = row.get("resourceSpans", row.get("resource_spans"))
    if resources is None:
        yield dict(row)
        return
    for resource in resources if isinstance(resources, list) else []:
        scopes = first(mapping(resource).get("scopeSpans"), mapping(resource).get("scope_spans"))
        service = _attributes(mapping(mapping(resource).get("resource")).get("attributes")).get("service.name")
        for scope in scopes if isinstance(scopes, list) else []:
            spans = mapping(scope).get("spans")
            for span in spans if isinstance(spans, list) else []:
                yield {**mapping(span), "service": service}


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes as a plain mapping, from that or from OTLP's list of key and typed value."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return {}
    return {str(mapping(one).get("key")): _typed(mapping(one).get("value")) for one in value}


def _typed(value: Any) -> Any:
    """The value in an OTLP AnyValue; whole numbers come as text."""
    one = mapping(value)
    if "intValue" in one:
        text = str(one["intValue"])
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
    if "arrayValue" in one:
        values = mapping(one["arrayValue"]).get("values")
        return [_typed(inner) for inner in values] if isinstance(values, list) else []
    if "kvlistValue" in one:
        return _attributes(mapping(one["kvlistValue"]).get("values"))
    return next((one[key] for key in ("stringValue", "doubleValue", "boolValue") if key in one), None)


def _interaction(span: Mapping[str, Any], place: Place) -> Interaction:
    attributes = _attributes(span.get("attributes"))
    what = attributes.get("gen_ai.operation.name") or attributes.get("openinference.span.kind")
    if isinstance(what, str) and what not in _CALLS and what.upper() != "LLM":
        raise NotAnInteraction(f"a span of kind {what[:40]!r}: no model's call")
    logged = span.get("events")
    events = [event for event in logged if isinstance(event, dict)] if isinstance(logged, list) else []
    messages, answer, reason = _texts(attributes, events)
    status = mapping(span.get("status"))
    failed = str(status.get("code")) in ("2", "STATUS_CODE_ERROR", "ERROR") or status.get("status_code") == "ERROR"
    if answer is None and not failed:
        raise NotAnInteraction("a span without messages: content capture was off when this was recorded")
    context = mapping(span.get("context"))
    start = first(span.get("startTimeUnixNano"), span.get("start_time"))
    trace = first(span.get("traceId"), span.get("trace_id"), context.get("trace_id"))
    reasons = attributes.get("gen_ai.response.finish_reasons")
    reasons = decoded(reasons)
    given = reasons[0] if isinstance(reasons, list) and reasons else reasons
    reasoning = text_or_none(answer.extra.get("reasoning_content")) if answer else None
    return Interaction(
        id=text_or_none(first(span.get("spanId"), span.get("span_id"), context.get("span_id"))) or place.source,
        source=place.source,
        role=text_or_none(first(attributes.get("gen_ai.agent.name"), attributes.get("agent.role"))) or place.role,
        messages=messages,
        output=answer.content if answer else None,
        output_calls=answer.tool_calls if answer else [],
        reasoning=reasoning,
        tools=tools_of(first(attributes.get("gen_ai.tool.definitions"), _indexed_tools(attributes))),
        succeeded=not failed,
        errors=[str(first(status.get("message"), status.get("description"), "status ERROR"))] if failed else [],
        provider=text_or_none(first(attributes.get("gen_ai.provider.name"), attributes.get("gen_ai.system"))),
        model=text_or_none(
            first(*(attributes.get(k) for k in ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")))
        ),
        duration_ms=between_ms(start, first(span.get("endTimeUnixNano"), span.get("end_time"))),
        max_tokens=whole(attributes.get("gen_ai.request.max_tokens")),
        finish_reason=finish_reason(first(given, reason)),
        timestamp=iso_time(start),
        session=text_or_none(first(attributes.get("gen_ai.conversation.id"), attributes.get("session.id"), trace)),
        extra={
            **without(span, "attributes", "events", "status", "context"),
            "attributes": {key: value for key, value in attributes.items() if not _CONTENT.match(key)},
            "events": [event for event in events if not str(event.get("name")).startswith("gen_ai.")],
        },
    )


_Texts = tuple[list[Message], Message | None, str | None]


def _texts(attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> _Texts:
    """The conversation, the answer and its finish reason, wherever this generation of the conventions puts them."""
    for event in events:
        if event.get("name") == "gen_ai.client.inference.operation.details":
            attributes = {**attributes, **_attributes(event.get("attributes"))}
    if "gen_ai.input.messages" in attributes:
        return _structured(attributes)
    if any(_INDEXED.match(name) for name in attributes):
        return _indexed(attributes)
    if any(one_of(event.get("name"), _EVENTS) or event.get("name") == "gen_ai.choice" for event in events):
        return _from_events(events)
    asked_text, answered = attributes.get("input.value"), attributes.get("output.value")
    if isinstance(asked_text, str) and isinstance(answered, str) and asked_text:
        return [Message(role="user", content=asked_text)], Message(role="assistant", content=answered), None
    raise NotAnInteraction("a span without messages: content capture was off when this was recorded")


def _structured(attributes: Mapping[str, Any]) -> _Texts:
    values = decoded(attributes["gen_ai.input.messages"])
    if not isinstance(values, list):
        raise NotAnInteraction(f"gen_ai.input.messages is {kind(values)}, not a list")
    messages = [m for i, v in enumerate(values) for m in _parts_message(v, f"gen_ai.input.messages[{i}]")]
    system = decoded(attributes.get("gen_ai.system_instructions"))
    if system:
        text = _parts_message({"role": "system", "parts": system}, "gen_ai.system_instructions")
        messages = [*text, *messages]
    outputs = decoded(attributes.get("gen_ai.output.messages"))
    answer, reason = None, None
    if isinstance(outputs, list) and outputs:
        reason = mapping(outputs[0]).get("finish_reason")
        turns = _parts_message({"role": "assistant", **mapping(outputs[0])}, "gen_ai.output.messages[0]")
        answer = turns[-1] if turns else None
    return asked(messages, "gen_ai.input.messages"), answer, reason if isinstance(reason, str) else None


def _parts_message(value: Any, place: str) -> list[Message]:
    """A message of parts; tool responses become turns of their own."""
    message = mapping(value)
    role, parts = message.get("role"), message.get("parts")
    if not isinstance(role, str):
        raise NotAnInteraction(f"{place} has no role")
    if parts is None:
        return [chat_message(message, place)]
    if isinstance(parts, str):
        return [Message(role=role, content=parts)]
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for index, one in enumerate(parts if isinstance(parts, list) else []):
        part, here = mapping(one) or {"type": "text", "content": one}, f"{place}.parts[{index}]"
        match part.get("type", "text"):
            case "tool_call":
                calls += tool_calls([part], here)
            case "tool_call_response":
                answer = first(part.get("response"), part.get("result"))
                content = answer if isinstance(answer, str) else _as_text(answer)
                results.append(Message(role="tool", content=content, tool_call_id=text_or_none(part.get("id"))))
            case "reasoning":
                thoughts.append(content_text(part.get("content"), here))
            case _:
                text.append(content_text([part], here))
    extra = {"reasoning_content": "".join(thoughts)} if thoughts else {}
    own = Message(
        role=role, content="".join(text), tool_calls=calls, name=text_or_none(message.get("name")), extra=extra
    )
    return [*results, own] if text or calls or thoughts or not results else results


def _as_text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _indexed(attributes: Mapping[str, Any]) -> _Texts:
    turns: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, value in attributes.items():
        found = _INDEXED.match(name)
        if found:
            answered = (found[1] or found[2]) in ("completion", "output_messages")
            turn = turns.setdefault((answered, int(found[3])), {})
            _set(turn, found[4].removeprefix("message."), value)
    ordered = [turns[key] for key in sorted(turns) if not key[0]]
    messages = [chat_message(_flat_turn(turn), f"prompt.{index}") for index, turn in enumerate(ordered)]
    answers = [turns[key] for key in sorted(turns) if key[0]]
    if not answers:
        return asked(messages, "the span's prompt"), None, None
    answer = chat_message({"role": "assistant", **_flat_turn(answers[0])}, "completion.0")
    return asked(messages, "the span's prompt"), answer, text_or_none(answers[0].get("finish_reason"))


def _set(turn: dict[str, Any], path: str, value: Any) -> None:
    found = re.fullmatch(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments|id)", path)
    content = re.fullmatch(r"contents\.(\d+)\.message_content\.text", path)
    if found:
        turn.setdefault("tool_calls", {}).setdefault(int(found[1]), {})[found[2]] = value
    elif content:
        turn["content"] = str(turn.get("content") or "") + str(value)
    else:
        turn[path] = value


def _flat_turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    calls = turn.get("tool_calls")
    ordered = [calls[index] for index in sorted(calls)] if isinstance(calls, dict) else calls
    return {**turn, "content": turn.get("content") or "", "tool_calls": ordered}


def _indexed_tools(attributes: Mapping[str, Any]) -> list[Any]:
    """OpenInference (llm.tools.0.tool.json_schema) and OpenLLMetry (llm.request.functions.0.name)."""
    schemas = [v for k, v in sorted(attributes.items()) if re.fullmatch(r"llm\.tools\.\d+\.tool\.json_schema", k)]
    functions: dict[str, dict[str, Any]] = {}
    for name, value in attributes.items():
        found = re.fullmatch(r"llm\.request\.functions\.(\d+)\.(name|description|parameters)", name)
        if found:
            functions.setdefault(found[1], {})[found[2]] = value
    return schemas or [functions[key] for key in sorted(functions)]


def _from_events(events: list[dict[str, Any]]) -> _Texts:
    messages: list[Message] = []
    answer, reason = None, None
    for index, event in enumerate(events):
        body = _attributes(event.get("attributes")) | mapping(event.get("body"))
        name = event.get("name")
        if one_of(name, _EVENTS):
            body = {key.removeprefix("gen_ai."): value for key, value in body.items()}
            body["tool_call_id"] = first(body.get("tool_call_id"), body.get("id"))
            messages.append(chat_message({"role": _EVENTS[str(name)], **_known(body)}, f"events[{index}]"))
        elif name == "gen_ai.choice" and answer is None:
            message = mapping(body.get("message")) or body
            answer = chat_message({"role": "assistant", **_known(message)}, f"events[{index}]")
            reason = text_or_none(body.get("finish_reason"))
    return asked(messages, "the span's events"), answer, reason


def _known(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in ("content", "tool_calls", "tool_call_id", "name") if body.get(key) is not None}
