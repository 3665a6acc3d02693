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
from journeyman.sources.openai_chat import answer_fields, first_choice
from journeyman.sources.openai_chat import answers as openai_answers
from journeyman.sources.place import Place
from journeyman.sources.status import claimed
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
        sent = mapping(row.get("proxy_server_request"))
        messages = first(sent.get("messages"), mapping(sent.get("body")).get("messages"))
    if messages in (None, {}, [], ""):
        raise NotAnInteraction("no messages: store_prompts_in_spend_logs was off when this was logged")
    response, parameters = decoded(row.get("response")), mapping(row.get("model_parameters"))
    status = claimed({**row, "exception": mapping(row.get("metadata")).get("error_information")})
    cost = mapping(row.get("metadata"))
    seconds = number(row.get("response_time"))
    base = {
        "id": text_or_none(first(row.get("id"), row.get("request_id"))) or place.source,
        "source": place.source,
        "role": named_role(cost.get("requester_metadata"), row.get("request_tags"), cost) or place.role,
        "messages": chat_messages(messages, "messages"),
        "tools": tools_of(parameters.get("tools")),
        "provider": text_or_none(row.get("custom_llm_provider")),
        "model": text_or_none(row.get("model")),
        "duration_ms": seconds * 1000 if seconds else between_ms(row.get("startTime"), row.get("endTime")),
        "max_tokens": whole(first(parameters.get("max_completion_tokens"), parameters.get("max_tokens"))),
        "timestamp": iso_time(row.get("startTime")),
        "session": text_or_none(first(row.get("session_id"), row.get("trace_id"))),
        "extra": without(row, *_READ),
    }
    for answer in _answers(response, status.succeeded is False):
        said = status.or_answered(answer.get("output") is not None).fields()
        yield Interaction.model_validate({**base, **said, **answer})


def _answers(response: Any, failed: bool) -> list[dict[str, Any]]:
    """The fields of every choice; a failed call has none."""
    choices = mapping(response).get("choices")
    if isinstance(choices, list) and choices:
        each = [first_choice({"choices": [one]}, "response") for one in choices]
        return [fields for fields in each if fields is not None]
    if mapping(response).get("object") == "response":
        return [answer_fields(*one) for one in openai_answers(mapping(response))]
    if isinstance(response, str) and response:
        return [{"output": response}]
    if failed:
        return [{"output": None}]
    raise NotAnInteraction("the response holds no choices")
