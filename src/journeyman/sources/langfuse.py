"""Langfuse observations: blob exports (snake_case; JSON, JSONL, CSV, Parquet) and the API's and UI's camelCase.

Source: Langfuse's "blob storage export field reference" and its public API. `input`, `output` and
`model_parameters` may hold JSON as text; empty text means unset; only GENERATION is a model's call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    first,
    iso_time,
    kind,
    mapping,
    named_role,
    number,
    one_of,
    text_or_none,
    tool_calls,
    tools_of,
    whole,
    without,
)
from journeyman.sources.openai_chat import answer_fields, first_choice
from journeyman.sources.place import Place
from journeyman.sources.turns import chat_message, chat_messages

_TYPES = {
    "GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL",
}  # fmt: skip
_READ = (
    "id", "input", "output", "start_time", "end_time", "model_parameters", "level", "status_message", "session_id",
    "provided_model_name", "model", "tool_calls", "tool_definitions", "latency", "metadata",
)  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    return one_of(row.get("type"), _TYPES) and bool({"trace_id", "traceId"} & row.keys())


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    row = {re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower(): value for key, value in row.items()}
    if row.get("type") != "GENERATION":
        raise NotAnInteraction(f"an observation of type {row.get('type')}: no model's call")
    asked, parameters = decoded(row.get("input")), mapping(row.get("model_parameters"))
    request = asked if isinstance(asked, dict) and "messages" in asked else {"messages": asked}
    if isinstance(asked, dict) and "messages" not in asked and "role" in asked:
        request = {"messages": [asked]}
    answer = _answer(row)
    failed = row.get("level") == "ERROR"
    status = text_or_none(row.get("status_message"))
    yield Interaction.model_validate({
        "id": text_or_none(row.get("id")) or place.source,
        "source": place.source,
        "role": named_role(row.get("metadata"), row.get("tags")) or place.role,
        "messages": chat_messages(request["messages"], "input"),
        "tools": tools_of(first(row.get("tool_definitions"), request.get("tools"))),
        "succeeded": not failed,
        "errors": [status or "level ERROR"] if failed else [],
        "provider": text_or_none(mapping(row.get("metadata")).get("ls_provider")),
        "model": text_or_none(first(row.get("provided_model_name"), row.get("model"))),
        "duration_ms": first(between_ms(row.get("start_time"), row.get("end_time")), _latency_ms(row)),
        "max_tokens": whole(_as_int(first(parameters.get("max_completion_tokens"), parameters.get("max_tokens")))),
        "timestamp": iso_time(row.get("start_time")),
        "session": text_or_none(first(row.get("session_id"), row.get("trace_id"))),
        "extra": without(row, *_READ) | without({"metadata": mapping(row.get("metadata"))}),
        **answer,
    })  # fmt: skip


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    output = decoded(row.get("output"))
    calls = row.get("tool_calls")
    if isinstance(calls, list):
        calls = [decoded(call) for call in calls]
    completion = first_choice(output, "output")
    if completion is not None:
        return completion
    if isinstance(output, list) and output and isinstance(output[-1], dict):
        output = output[-1]
    if isinstance(output, dict) and ("content" in output or "tool_calls" in output or "role" in output):
        return answer_fields(chat_message({"role": "assistant", **output}, "output"), output.get("finish_reason"))
    if output is None or isinstance(output, str):
        message = Message(role="assistant", content=output or "", tool_calls=tool_calls(calls, "tool_calls"))
        return answer_fields(message, None)
    if isinstance(row.get("output"), str):  # an answer that is itself JSON
        return {"output": row["output"]}
    raise NotAnInteraction(f"output is {kind(output)}, neither text nor a message")


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _latency_ms(row: Mapping[str, Any]) -> float | None:
    latency = number(row.get("latency"))  # seconds; milliseconds in integrations of before April 2026
    return None if latency is None else latency * 1000
