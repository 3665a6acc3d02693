"""A plain table: CSV, Parquet or flat JSON rows, with a mapping from fields to columns (data.columns)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    at_path,
    content_text,
    decoded,
    finish_reason,
    iso_time,
    mapping,
    number,
    text_or_none,
    tool_calls,
    tools_of,
    whole,
)
from journeyman.sources.openai_finetune import row_status, session_of
from journeyman.sources.place import Place
from journeyman.sources.turns import LOST, chat_messages

FIELDS = (
    "prompt", "answer", "system", "messages", "role", "id", "session", "model", "provider", "duration_ms", "status",
    "max_tokens", "finish_reason", "timestamp", "tools", "tool_calls", "check",
)  # fmt: skip
"""The keys of data.columns; a field without an entry is read from the column of the same name."""


def claims(row: Mapping[str, Any]) -> bool:
    return "answer" in row and ("prompt" in row or "messages" in row)


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    values = {field: _cell(row, place.columns.get(field, field)) for field in FIELDS}
    answer_column = place.columns.get("answer", "answer")
    if answer_column not in row and values["answer"] is None:
        raise NotAnInteraction(why.ColumnMissing(answer_column, "data.columns.answer"))
    tokens = number(values["max_tokens"])
    taken = {*place.columns.values(), "status"}
    others = {name: value for name, value in row.items() if name not in taken}
    status = row_status({**others, "status": values["status"]})
    answer = content_text(values["answer"], answer_column)
    if answer.strip() in LOST:
        raise NotAnInteraction(why.AnswerLost(answer_column, answer.strip()))
    yield Interaction(
        id=_as_text(values["id"]) or place.source,
        source=place.source,
        role=text_or_none(values["role"]) or place.role,
        messages=_conversation(values, place),
        output=answer,
        output_calls=tool_calls(values["tool_calls"], "tool_calls"),
        tools=tools_of(values["tools"]),
        **status.fields(),
        provider=text_or_none(values["provider"]),
        model=text_or_none(values["model"]),
        duration_ms=number(values["duration_ms"]),
        max_tokens=whole(int(tokens)) if tokens is not None else None,
        finish_reason=finish_reason(values["finish_reason"]),
        timestamp=iso_time(values["timestamp"]),
        session=_as_text(values["session"]) or session_of(row),
        check=mapping(values["check"]),
        extra={k: v for k, v in row.items() if k not in {place.columns.get(f, f) for f in FIELDS}},
    )


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """The value in the column of that name, or at that dotted path."""
    return row[column] if column in row else at_path(row, column) if "." in column else None


def _conversation(values: Mapping[str, Any], place: Place) -> list[Message]:
    if values["messages"] not in (None, ""):
        return chat_messages(decoded(values["messages"]), "messages")
    column = place.columns.get("prompt", "prompt")
    prompt = content_text(values["prompt"], column)
    if not prompt:
        raise NotAnInteraction(why.ColumnMissing(column, "data.columns.prompt"))
    system = text_or_none(values["system"])
    return [*([Message(role="system", content=system)] if system else []), Message(role="user", content=prompt)]


def _as_text(value: Any) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_or_none(value)
