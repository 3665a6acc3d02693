"""journeyman's agent log: one JSON object per line, with task, agent, llm, execution and context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.fields import (
    NotAnInteraction,
    finish_reason,
    first,
    kind,
    mapping,
    number,
    text_or_none,
    tool_calls,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import claimed
from journeyman.sources.turns import chat_messages

_EXECUTION = ("input_messages", "output", "errors", "status", "duration_ms", "finish_reason", "tool_calls", "tools")


def claims(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("agent"), dict) and "execution" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    agent, llm, execution = (_section(row, name) for name in ("agent", "llm", "execution"))
    role = agent.get("role")
    if not isinstance(role, str) or not role:
        raise NotAnInteraction(why.FieldMissing("agent.role"))
    if "output" not in execution:
        raise NotAnInteraction(why.FieldMissing("execution.output"))
    output = execution["output"]
    if output is not None and not isinstance(output, str):
        raise NotAnInteraction(why.WrongType("execution.output", kind(output), "text"))
    errors = execution.get("errors") or []
    if not isinstance(errors, list):
        raise NotAnInteraction(why.WrongType("execution.errors", kind(errors), "a list"))
    context, task = mapping(row.get("context")), mapping(row.get("task"))
    extra = {
        **without(row, "id", "timestamp", "agent", "llm", "execution", "check"),
        "agent": without(agent, "role"),
        "llm": without(llm, "provider", "model"),
        "execution": without(execution, *_EXECUTION),
    }
    yield Interaction(
        id=text_or_none(row.get("id")) or place.source,
        source=place.source,
        role=role,
        messages=chat_messages(execution.get("input_messages"), "execution.input_messages"),
        output=output,
        output_calls=tool_calls(execution.get("tool_calls"), "execution.tool_calls"),
        tools=tools_of(execution.get("tools")),
        **claimed(execution, row).fields(),
        provider=text_or_none(llm.get("provider")),
        model=text_or_none(llm.get("model")),
        duration_ms=number(execution.get("duration_ms")),
        max_tokens=whole(mapping(llm.get("config")).get("max_tokens")),
        finish_reason=finish_reason(execution.get("finish_reason")),
        timestamp=text_or_none(row.get("timestamp")),
        session=text_or_none(
            first(row.get("session_id"), context.get("session_id"), context.get("run_id"), task.get("run_id"))
        ),
        check=mapping(row.get("check")),
        extra={key: value for key, value in extra.items() if value not in (None, "", [], {})},
    )


def _section(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise NotAnInteraction(why.FieldMissing(f"{name} object"))
    return value
