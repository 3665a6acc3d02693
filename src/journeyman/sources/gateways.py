"""Exports of gateways (OpenPipe, Helicone, Portkey): bodies of request and response with fields of the gateway.

Source: OpenPipe's request log export, Helicone's request schema and export, Portkey's log export fields. The bodies
are in OpenAI's or Anthropic's format, and are read as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction
from journeyman.sources import anthropic, openai_chat
from journeyman.sources.fields import NotAnInteraction, first, mapping, number, text_or_none, without
from journeyman.sources.place import Place
from journeyman.sources.status import claimed

_REQUESTS = ("request_body", "requestBody", "reqPayload", "request", "input")
_RESPONSES = ("response_body", "responseBody", "respPayload", "response", "output")
_MARKS = (
    "request_body", "requestBody", "reqPayload", "request_path", "request_model", "response_status_code", "ai_org",
    "ai_model", "is_success", "respPayload", "response_status",
)  # fmt: skip
_TIMES = ("request_created_at", "requestCreatedAt", "created_at", "requestedAt", "requested_at")
_MILLISECONDS = ("delay_ms", "delayMs", "latency_ms", "duration_ms", "response_time", "responseTime")


def claims(row: Mapping[str, Any]) -> bool:
    request, response = _bodies(row)
    if not ("messages" in request or "input" in request or "contents" in request):
        return False
    piped = isinstance(row.get("input"), dict) and "choices" in mapping(row.get("output"))
    return piped or (bool(response) and any(name in row for name in _MARKS))


def _bodies(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    request = next((body for name in _REQUESTS if (body := mapping(row.get(name)))), {})
    response = next((body for name in _RESPONSES if (body := mapping(row.get(name)))), {})
    return mapping(request.get("body")) or request, mapping(response.get("body")) or response


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    request, response = _bodies(row)
    kept = without(row, *_REQUESTS, *_RESPONSES)
    properties = {**mapping(row.get("properties")), **mapping(row.get("tags")), **mapping(row.get("metadata"))}
    pair = {
        **kept,
        "id": text_or_none(first(row.get("id"), row.get("request_id"), row.get("requestId"))),
        "request": request,
        "response": response,
        "metadata": properties,
        "timestamp": first(*(row.get(name) for name in _TIMES)),
        "duration_ms": number(first(*(row.get(name) for name in _MILLISECONDS))),
        "provider": text_or_none(first(row.get("provider"), row.get("ai_org"))),
    }
    dialect = anthropic if anthropic.claims(pair) and "choices" not in response else openai_chat
    session = text_or_none(first(*(row.get(name) for name in ("session_id", "trace_id", "Helicone-Session-Id"))))
    status = claimed(kept)
    for one in dialect.interactions(pair, place):
        changes: dict[str, Any] = {} if one.session or not session else {"session": session}
        if status.succeeded is False and one.succeeded is not False:
            changes |= {"succeeded": False, "errors": [*one.errors, *status.errors]}
        yield one.model_copy(update=changes)
