"""LiteLLM: the StandardLoggingPayload that its callbacks write, and rows of LiteLLM_SpendLogs.

Source: LiteLLM's "StandardLoggingPayload specification" and its database schema. Spend logs hold the texts
only where the proxy was told to store prompts; a row without is rejected with that reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    first,
    iso_time,
    mapping,
    named_role,
    number,
    text_or_none,
    tools_of,
    whole,
    without,
)
from journeyman.sources.openai_chat import first_choice
from journeyman.sources.place import Place
from journeyman.sources.turns import chat_messages

_CHATS = (None, "", "completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses")
_READ = (
    "id", "request_id", "messages", "response", "status", "model", "custom_llm_provider", "startTime", "endTime",
    "response_time", "session_id", "trace_id", "error_str", "model_parameters", "proxy_server_request",
)  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    return "call_type" in row and bool({"startTime", "request_id", "litellm_call_id"} & row.keys())


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    if row.get("call_type") not in _CHATS:
        raise NotAnInteraction(f"a call of type {str(row.get('call_type'))[:40]!r}: no chat")
    messages = decoded(row.get("messages"))
    if messages in (None, {}, [], ""):
        messages = mapping(row.get("proxy_server_request")).get("messages")
    if messages in (None, {}, [], ""):
        raise NotAnInteraction("no messages: store_prompts_in_spend_logs was off when this was logged")
    response, parameters = decoded(row.get("response")), mapping(row.get("model_parameters"))
    failed = row.get("status") == "failure" or bool(row.get("error_str"))
    cost = mapping(row.get("metadata"))
    seconds = number(row.get("response_time"))
    yield Interaction.model_validate({
        "id": text_or_none(first(row.get("id"), row.get("request_id"))) or place.source,
        "source": place.source,
        "role": named_role(cost.get("requester_metadata"), row.get("request_tags"), cost) or place.role,
        "messages": chat_messages(messages, "messages"),
        "tools": tools_of(parameters.get("tools")),
        "succeeded": not failed,
        "errors": [str(first(row.get("error_str"), "status failure"))] if failed else [],
        "provider": text_or_none(row.get("custom_llm_provider")),
        "model": text_or_none(row.get("model")),
        "duration_ms": seconds * 1000 if seconds else between_ms(row.get("startTime"), row.get("endTime")),
        "max_tokens": whole(first(parameters.get("max_completion_tokens"), parameters.get("max_tokens"))),
        "timestamp": iso_time(row.get("startTime")),
        "session": text_or_none(first(row.get("session_id"), row.get("trace_id"))),
        "extra": without(row, *_READ),
        **_answer(response, failed),
    })  # fmt: skip


def _answer(response: Any, failed: bool) -> dict[str, Any]:
    completion = first_choice(response, "response")
    if completion is not None:
        return completion
    if isinstance(response, str) and response:
        return {"output": response}
    if failed:
        return {"output": None}
    raise NotAnInteraction("the response holds no choices")
