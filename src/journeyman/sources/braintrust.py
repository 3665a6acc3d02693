"""Braintrust: spans of project logs and experiments, as exported by the web page, the API and BTQL.

Source: Braintrust's "Export annotated data", its API reference (project logs: fetch) and span fields. Only spans of
type llm are model calls. A score alone is not a success; set data.success_field = "scores.NAME" to use one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import answers_of, interactions_of, with_echo
from journeyman.sources.asking import asked_of
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    first,
    iso_time,
    mapping,
    named_role,
    text_or_none,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import claimed

_READ = ("id", "input", "output", "error", "created")


def claims(row: Mapping[str, Any]) -> bool:
    return "span_attributes" in row and "root_span_id" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    metadata, metrics = mapping(row.get("metadata")), mapping(row.get("metrics"))
    type_ = first(mapping(row.get("span_attributes")).get("type"), "llm" if metadata.get("model") else None)
    if type_ != "llm":
        raise NotAnInteraction(why.NotAModelCall("a span", plain(str(type_), 40)))
    call = with_echo(asked_of(row.get("input"), "input"), row.get("output"), "output")
    base = {
        "id": text_or_none(first(row.get("id"), row.get("span_id"))) or place.source,
        "source": place.source,
        "role": named_role(metadata, row.get("tags")) or place.role,
        "tools": tools_of(first(metadata.get("tools"), metadata.get("functions"))) or call.tools,
        "provider": text_or_none(metadata.get("provider")),
        "model": text_or_none(first(metadata.get("model"), call.settings.get("model"))),
        "duration_ms": between_ms(metrics.get("start"), metrics.get("end")),
        "max_tokens": whole(first(metadata.get("max_completion_tokens"), metadata.get("max_tokens"))),
        "timestamp": iso_time(first(row.get("created"), metrics.get("start"))),
        "session": text_or_none(first(metadata.get("session_id"), metadata.get("thread_id"), row.get("root_span_id"))),
        "extra": without(row, *_READ) | without({"request": call.settings}),
    }
    status = claimed({"error": row.get("error"), "scores": _given(row.get("scores"))})
    yield from interactions_of(base, call, answers_of(row.get("output"), "output"), status)


def _given(scores: Any) -> Any:
    """Scores that have a value; a scorer that did not run leaves null."""
    scores = decoded(scores)
    return without(scores) if isinstance(scores, dict) else scores
