"""LiteLLM: the StandardLoggingPayload that its callbacks write, and rows of LiteLLM_SpendLogs.

Source: LiteLLM's "StandardLoggingPayload specification" and its database schema. Spend logs contain texts only if the
proxy is configured to store prompts, and long texts are cut; rows without texts are rejected with that reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import Answer, answers_of, interactions_of, with_echo
from journeyman.sources.asking import Asked, asked_of
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
from journeyman.sources.place import Place
from journeyman.sources.status import Status, claimed

_CHATS = (
    None,
    "",
    "completion",
    "acompletion",
    "text_completion",
    "atext_completion",
    "responses",
    "aresponses",
    "anthropic_messages",
    "agenerate_content",
    "generate_content",
)
_READ = (
    "id", "request_id", "messages", "response", "status", "model", "custom_llm_provider", "startTime", "endTime",
    "response_time", "session_id", "trace_id", "error_str", "model_parameters", "proxy_server_request",
)  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    return "call_type" in row and bool({"startTime", "request_id", "litellm_call_id"} & row.keys())


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    if row.get("call_type") not in _CHATS:
        raise NotAnInteraction(why.NotAModelCall("a call", plain(str(row.get("call_type")), 40)))
    call, response = _asked(row), decoded(row.get("response"))
    parameters, cost = mapping(row.get("model_parameters")), mapping(row.get("metadata"))
    status = _status(row, cost)
    answers = answers_of(response, "response")
    if not answers and status.succeeded is not False:
        raise NotAnInteraction(why.FieldMissing("choices, and nothing says that the call failed", "the response"))
    call = with_echo(call, response, "response")
    _refuse_shortened(call, answers)
    seconds = number(row.get("response_time"))
    base = {
        "id": text_or_none(first(row.get("id"), row.get("request_id"))) or place.source,
        "source": place.source,
        "role": named_role(cost.get("requester_metadata"), row.get("request_tags"), cost) or place.role,
        "tools": tools_of(first(parameters.get("tools"), parameters.get("functions"))) or call.tools,
        "provider": text_or_none(row.get("custom_llm_provider")),
        "model": text_or_none(row.get("model")),
        "duration_ms": seconds * 1000 if seconds else between_ms(row.get("startTime"), row.get("endTime")),
        "max_tokens": whole(first(parameters.get("max_completion_tokens"), parameters.get("max_tokens"))),
        "timestamp": iso_time(row.get("startTime")),
        "session": text_or_none(first(row.get("session_id"), row.get("trace_id"))),
        "extra": without(row, *_READ)
        | without({"request": call.settings, "response": without(mapping(response), "choices", "output")}),
    }
    yield from interactions_of(base, call, answers, status)


def _asked(row: Mapping[str, Any]) -> Asked:
    """The conversation, from the row or from the request that the proxy received; only the latter may have tools."""
    sent = mapping(row.get("proxy_server_request"))
    sent = mapping(sent.get("body")) or sent
    whole_ = asked_of(sent, "proxy_server_request") if sent.keys() & {"messages", "input", "contents"} else None
    messages = decoded(row.get("messages"))
    if messages not in (None, {}, [], ""):
        call = asked_of(messages, "messages")
        return call if whole_ is None else Asked(call.messages, call.tools or whole_.tools)
    if whole_ is None:
        raise NotAnInteraction(why.NotLogged("no messages", "store_prompts_in_spend_logs was off when this was logged"))
    return whole_


def _refuse_shortened(call: Asked, answers: list[Answer]) -> None:
    """Raises NotAnInteraction if LiteLLM redacted or cut a text before storing it."""
    given = [(f"messages[{index}]", turn.content, turn.tool_calls) for index, turn in enumerate(call.messages)]
    said = [("the response", one.get("output") or "", one.get("output_calls", [])) for one in answers]
    for name, text, calls in [*given, *said]:
        held = text if not calls else text + "".join(str(one.arguments) for one in calls)
        if held == "redacted-by-litellm":
            raise NotAnInteraction(
                why.NotLogged(f"{name} was redacted", "turn_off_message_logging was on when this was logged")
            )
        if "litellm_truncated" in held:
            raise NotAnInteraction(
                why.NotLogged(f"{name} was cut before it was stored", "raise MAX_STRING_LENGTH_PROMPT_IN_DB")
            )


def _status(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> Status:
    error = mapping(metadata.get("error_information"))
    told = first(error.get("error_message"), error.get("error_class"), error.get("error_code"))
    fields = mapping(row.get("status_fields"))
    return claimed({**row, "exception": told}, {"status": fields.get("llm_api_status")},
                   {"status": metadata.get("status")})  # fmt: skip
