"""xLAM function calling: {"query": …, "answers": "[calls as JSON]", "tools": "[definitions as JSON]"}.

Source: the dataset card of Salesforce's xlam-function-calling-60k. Parameters are flat, name → {type, description,
default}; they become a JSON Schema, in which parameters without a default are required.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    content_text,
    decoded,
    kind,
    mapping,
    named_role,
    tool_calls,
    without,
)
from journeyman.sources.learn import LEARN_FIELDS
from journeyman.sources.openai_finetune import row_status
from journeyman.sources.place import Place

_TYPES = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "bool": "boolean", "boolean": "boolean", "list": "array", "array": "array", "dict": "object", "object": "object",
}  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("query"), str) and isinstance(decoded(row.get("answers")), list) and "tools" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    query = content_text(row.get("query"), "query")
    if not query:
        raise NotAnInteraction(why.FieldEmpty("query"))
    calls = tool_calls(row.get("answers"), "answers")
    tools = decoded(row.get("tools"))
    if not isinstance(tools, list):
        raise NotAnInteraction(why.WrongType("tools", kind(tools), "a list"))
    id_ = row.get("id")
    yield Interaction(
        id=place.source if id_ is None else str(id_),
        source=place.source,
        role=named_role(row, row.get("metadata")) or place.role,
        messages=[Message(role="user", content=query)],
        output="" if calls else None,
        output_calls=calls,
        tools=[_tool(one) for one in tools],
        finish_reason="tool_calls" if calls else None,
        check=mapping(row.get("check")),
        extra=without(row, "id", "query", "answers", "tools", "check", "role", *LEARN_FIELDS),
        **row_status(row).fields(),
    )


def _tool(value: Any) -> dict[str, Any]:
    one = mapping(value)
    inner = mapping(one.get("function")) or one
    given = mapping(inner.get("parameters"))
    schema = given if given.get("type") == "object" and "properties" in given else _schema(given)
    described = {"name": inner.get("name"), "description": inner.get("description"), "parameters": schema}
    return {"type": "function", "function": {key: kept for key, kept in described.items() if kept is not None}}


def _schema(flat: Mapping[str, Any]) -> dict[str, Any]:
    properties, required = {}, []
    for name, value in flat.items():
        described = dict(mapping(value))
        words = str(described.get("type", "string")).split(",")
        base = words[0].strip().split("[")[0].lower()
        described["type"] = _TYPES.get(base, "string")
        properties[name] = described
        if "default" not in described and not any(word.strip() == "optional" for word in words[1:]):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}
