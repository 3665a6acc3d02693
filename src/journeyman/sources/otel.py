"""OpenTelemetry GenAI spans: OTLP JSON (resourceSpans), one span per line, and the span tables of Logfire and Phoenix.

Source: the GenAI semantic conventions of OpenTelemetry, OTLP's JSON encoding, Logfire's SQL reference (records) and
Phoenix's span exports. sources.otel_texts finds the texts in a span.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import interactions_of, with_echo
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    finish_reason,
    first,
    iso_time,
    mapping,
    text_or_none,
    tools_of,
    whole,
    without,
)
from journeyman.sources.otel_texts import PAIRS, indexed_tools, texts_of
from journeyman.sources.place import Place
from journeyman.sources.status import Status, claimed, of_error, of_word

_CALLS = ("chat", "text_completion", "generate_content", "responses", "completion")
_SIGNS = ("gen_ai.", "openinference.", "llm.", "ai.prompt", "ai.operationId", "ai.response", "logfire.", "mlflow.span")
_CONTENT = re.compile(
    r"gen_ai\.(system_instructions|input\.messages|output\.messages|tool\.definitions|prompt|completion)(\.|$)"
    r"|llm\.(input_messages|output_messages|tools)\.|(input|output)\.value$|ai\.(prompt|response|result)\.(messages|"
    r"tools|text|toolCalls|object|reasoning)$|(request_data|response_data|events|all_messages_events)$"
)
_PAIRED = {name for pair in PAIRS for name in pair}
_NESTED = ("llm", "openinference", "gen_ai", "input", "output", "session", "ai", "agent")
_OUTER = re.compile(r"ai\.(generate|stream)(Text|Object)$")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "start_timestamp")
_ENDS = ("endTimeUnixNano", "end_time_unix_nano", "end_time", "endTime", "end_timestamp")


def claims(row: Mapping[str, Any]) -> bool:
    if "resourceSpans" in row or "resource_spans" in row:
        return True
    if "attributes" not in row:
        return any(name.startswith(("attributes.llm.", "attributes.gen_ai.")) for name in row)
    return any(name.startswith(_SIGNS) or name in _NESTED[:3] for name in attributes_of(row["attributes"]))


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    """Yields every span of the row as interactions, or the reason for rejecting it."""
    spans = list(_spans(row))
    if not spans:
        raise NotAnInteraction(why.FieldMissing("span", "resourceSpans"))
    for span in spans:
        try:
            yield from span_interactions(span, place)
        except NotAnInteraction as reason:
            yield reason


def _spans(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    resources = row.get("resourceSpans", row.get("resource_spans"))
    if resources is None:
        yield dict(row)
        return
    for resource in resources if isinstance(resources, list) else []:
        scopes = first(mapping(resource).get("scopeSpans"), mapping(resource).get("scope_spans"))
        service = attributes_of(mapping(mapping(resource).get("resource")).get("attributes")).get("service.name")
        for scope in scopes if isinstance(scopes, list) else []:
            spans = mapping(scope).get("spans")
            for span in spans if isinstance(spans, list) else []:
                yield {**mapping(span), "service": service}


def attributes_of(value: Any) -> dict[str, Any]:
    """Attributes as a plain mapping, given as such, as JSON, or as OTLP's list of keys and typed values."""
    value = decoded(value)
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return {}
    return {str(mapping(one).get("key")): _typed(mapping(one).get("value")) for one in value}


def _typed(value: Any) -> Any:
    """The value in an OTLP AnyValue; integers are encoded as text."""
    one = mapping(value)
    if "intValue" in one:
        text = str(one["intValue"])
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
    if "arrayValue" in one:
        values = mapping(one["arrayValue"]).get("values")
        return [_typed(inner) for inner in values] if isinstance(values, list) else []
    if "kvlistValue" in one:
        return attributes_of(mapping(one["kvlistValue"]).get("values"))
    return next((one[key] for key in ("stringValue", "doubleValue", "boolValue") if key in one), None)


def _flat(span: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with dotted names; Phoenix nests them, or has a column for each."""
    held = attributes_of(span.get("attributes"))
    held |= {key.removeprefix("attributes."): value for key, value in span.items() if key.startswith("attributes.")}
    flat: dict[str, Any] = {}
    for name, value in held.items():
        nested = name in _NESTED or name.startswith(("llm.input_messages", "llm.output_messages", "llm.tools"))
        flat |= dict(_leaves(value, name)) if nested and isinstance(value, dict | list) else {name: value}
    return flat


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and not path.endswith(("value", "json_schema", "arguments", "parameters")):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and path.startswith("llm."):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value


def _events(span: Mapping[str, Any]) -> list[dict[str, Any]]:
    logged = decoded(first(span.get("events"), span.get("otel_events")))
    found = [event for event in logged if isinstance(event, dict)] if isinstance(logged, list) else []
    named = ({**one, "name": text_or_none(first(one.get("name"), one.get("event_name")))} for one in found)
    return [{**one, "attributes": attributes_of(one.get("attributes"))} for one in named]


def _refuse_others(attributes: Mapping[str, Any]) -> None:
    """Raises NotAnInteraction for a span that is not a model call: one around several calls, a tool's, …"""
    operation = attributes.get("ai.operationId")
    if isinstance(operation, str) and "ai.prompt.messages" not in attributes:
        told = "its calls are the doGenerate and doStream spans below it" if _OUTER.match(operation) else ""
        raise NotAnInteraction(why.NotAModelCall("a span", plain(operation, 40), told))
    names = ("gen_ai.operation.name", "openinference.span.kind", "mlflow.spanType")
    what = decoded(first(*(attributes.get(name) for name in names)))
    called = isinstance(operation, str) or what in _CALLS or str(what).upper() in ("LLM", "CHAT_MODEL")
    if isinstance(what, str) and not called:
        raise NotAnInteraction(why.NotAModelCall("a span", plain(what, 40)))


def span_interactions(span: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    """The calls in one span; its other attributes go into `extra`.

    Raises:
        NotAnInteraction: it is not a model call, or its texts are missing.
    """
    attributes, events = _flat(span), _events(span)
    _refuse_others(attributes)
    call, answers = texts_of(attributes, events)
    for _, answered in PAIRS:
        call = with_echo(call, attributes.get(answered), answered)
    get = attributes.get
    context = mapping(span.get("context"))
    start = first(*(span.get(name) for name in _STARTS))
    reasons = decoded(get("gen_ai.response.finish_reasons"))
    told = reasons if isinstance(reasons, list) else [reasons]
    for answer, reason in zip(answers, [*told, *[None] * len(answers)], strict=False):
        answer["finish_reason"] = finish_reason(reason) or answer.get("finish_reason")
    trace = first(span.get("traceId"), span.get("trace_id"), context.get("trace_id"), span.get("context.trace_id"))
    settings = mapping(get("llm.invocation_parameters"))
    base = {
        "id": text_or_none(first(span.get("spanId"), span.get("span_id"), context.get("span_id"),
                                 span.get("context.span_id"))) or place.source,
        "source": place.source,
        "role": _named(attributes, "gen_ai.agent.name", "agent.role", "agent.name", "agent_name",
                       "ai.telemetry.metadata.agent_role", "ai.telemetry.metadata.agent") or place.role,
        "tools": tools_of(first(get("gen_ai.tool.definitions"), get("mlflow.chat.tools"),
                                indexed_tools(attributes) or None, settings.get("tools"))) or call.tools,
        "provider": _named(attributes, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system",
                           "ai.model.provider"),
        "model": _named(attributes, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name",
                        "ai.response.model", "ai.model.id") or text_or_none(call.settings.get("model")),
        "duration_ms": between_ms(start, first(*(span.get(name) for name in _ENDS))),
        "max_tokens": whole(first(get("gen_ai.request.max_tokens"), settings.get("max_tokens"),
                                  get("ai.settings.maxOutputTokens"), get("ai.settings.maxTokens"))),
        "timestamp": iso_time(start),
        "session": _named(attributes, "gen_ai.conversation.id", "session.id", "ai.telemetry.metadata.sessionId",
                          "ai.telemetry.metadata.session_id") or text_or_none(trace),
        "extra": {
            **{key: value for key, value in without(span, "attributes", "events", "otel_events", "status", "context")
               .items() if not key.startswith("attributes.")},
            "attributes": {key: value for key, value in attributes.items()
                           if not _CONTENT.search(key) and key not in _PAIRED},
            "events": [event for event in events if not str(event.get("name")).startswith("gen_ai.")],
            "request": call.settings,
            "response": without(mapping(get("response_data")), "message", "choices", "output"),
        },
    }  # fmt: skip
    yield from interactions_of(base, call, answers, _status(span, attributes, events))


def _named(attributes: Mapping[str, Any], *names: str) -> str | None:
    return text_or_none(first(*(attributes.get(name) for name in names)))


def _status(span: Mapping[str, Any], attributes: Mapping[str, Any], events: list[dict[str, Any]]) -> Status:
    """The span's status in any spelling, its error type, and a recorded exception."""
    held = span.get("status")
    inner = mapping(held)
    code = first(*(inner.get(name) for name in ("code", "status_code", "statusCode")), None if inner else held,
                 *(span.get(name) for name in ("status_code", "statusCode", "otel_status_code", "status.code")),
                 attributes.get("otel.status_code"))  # fmt: skip
    message = first(*(inner.get(name) for name in ("message", "description")),
                    *(span.get(name) for name in ("status_message", "statusMessage", "otel_status_message")),
                    attributes.get("otel.status_description"))  # fmt: skip
    error = of_error(first(attributes.get("error.type"), attributes.get("error"), span.get("exception_type")))
    said = Status(False) if code in (2, "2") else Status() if code in (0, 1, "0", "1") else of_word(code, "status")
    if said.succeeded is False or error.succeeded is False or span.get("is_exception") is True:
        told = [plain(str(message), 300)] if message else error.errors or ["status ERROR"]
        return Status(False, told, said.notes)
    raised = next((mapping(one.get("attributes")) for one in events if one.get("name") == "exception"), None)
    if raised is not None and said.succeeded is None:
        return of_error(first(raised.get("exception.message"), raised.get("exception.type"), "exception"))
    return said.also(claimed({name: span[name] for name in ("scores",) if span.get(name)}))
