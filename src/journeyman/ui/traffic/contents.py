"""What was asked and answered in a recorded row, as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from journeyman.config import DataConfig
from journeyman.records import Interaction
from journeyman.sources.fields import mapping
from journeyman.sources.reader import Reader
from journeyman.sources.rows import parse_line

_MOST_TEXT = 200_000
_FACTS = (
    "path", "provider", "finish_reason", "errors", "why", "lost", "streamed", "unread", "redacted", "bytes", "key",
)  # fmt: skip
"""Fields of the row besides what the exchange's line says."""


@cache
def _reader() -> Reader:
    return Reader(DataConfig())


def interaction_of(row: Mapping[str, Any], **changes: Any) -> Interaction | None:
    """A recorded row as an interaction, whoever answered it; None if it is none."""
    bare = {name: value for name, value in row.items() if name not in ("route", "of", "reference")}
    line = json.dumps({**bare, "role": row.get("role") or "agent", **changes}).encode()
    found = _reader().records(parse_line(line, 1), "recorded")
    return next((one for one in found if isinstance(one, Interaction)), None)


def contents_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt, answer and facts. Of what is no interaction, the request as text."""
    one = interaction_of(row)
    facts = {name: row[name] for name in _FACTS if row.get(name) not in (None, "", {}, [])}
    facts |= {"route": mapping(row["route"])} if row.get("route") else {}
    if one is None:
        request, response = (_text(row.get(name)) for name in ("request", "response"))
        return {"messages": None, "request": request, "answer": response, "calls": [], "tools": [], "facts": facts}
    partial = mapping(one.extra.get("partial"))
    calls = [call.model_dump(mode="json") for call in one.output_calls] or partial.get("calls") or []
    return {
        "messages": [{**turn.model_dump(mode="json"), "content": cut(turn.content)} for turn in one.messages],
        "answer": cut(one.output if one.output is not None else str(partial.get("output") or "")),
        "reasoning": cut(one.reasoning or ""), "calls": calls, "tools": one.tools, "facts": facts,
    }  # fmt: skip


def reference_of(row: Mapping[str, Any]) -> str | None:
    """The teacher's answer beside one of the student that was only compared; None: there is none."""
    if row.get("reference") is None:
        return None
    one = interaction_of(row, response=row["reference"], status=200, outcome="complete", errors=None)
    return None if one is None or one.output is None else cut(one.output)


def cut(text: str) -> str:
    """The text, or its beginning, which says so."""
    if len(text) <= _MOST_TEXT:
        return text
    return f"{text[:_MOST_TEXT]}\n… cut here: {len(text) - _MOST_TEXT:,} more characters are in the row"


def _text(value: Any) -> str:
    return "" if value is None else cut(json.dumps(value, ensure_ascii=False, indent=1))
