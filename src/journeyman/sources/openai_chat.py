"""OpenAI chat completions: request and response pairs, stored completions, batch output joined with its input.

Source: the API reference of chat completions (create, list stored completions), of batches and of responses.
Items of the Responses API are read as well. A completion with several choices becomes several interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message, ToolCall
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    content_text,
    decoded,
    finish_reason,
    first,
    iso_time,
    kind,
    mapping,
    named_role,
    number,
    text_or_none,
    tool_call,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import claimed, distinct
from journeyman.sources.turns import asked, chat_message, chat_messages

_SESSIONS = ("session_id", "conversation_id", "thread_id", "run_id", "trace_id")
_ASKED = ("messages", "input", "instructions", "tools", "model", "max_tokens", "max_completion_tokens")


def claims(row: Mapping[str, Any]) -> bool:
    if row.get("object") == "chat.completion" or "custom_id" in row:
        return not _is_anthropic_batch(row)
    request, response = _halves(row)
    return ("messages" in request or "input" in request) and _is_answer(response)


def _is_anthropic_batch(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("result"), dict) and "type" in row["result"]


def _is_answer(response: Mapping[str, Any]) -> bool:
    return "choices" in response or response.get("object") == "response" or bool(response.get("error"))


def _halves(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Request and response without their HTTP envelopes; a stored completion is both."""
    request = mapping(first(row.get("request"), row.get("body"), row.get("kwargs")))
    response = mapping(first(row.get("response"), row.get("completion")))
    if not request and "messages" in row and response:
        request = dict(row)
    if not request and not response:
        return dict(row), dict(row)
    request = mapping(request.get("body")) or request
    return request or dict(row), mapping(response.get("body")) or response


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    request, response = _halves(row)
    if "messages" not in request and "input" not in request:
        raise NotAnInteraction(why.NoRequest())
    if request.get("previous_response_id") or response.get("previous_response_id"):
        raise NotAnInteraction(why.EarlierResponse("previous_response_id"))
    given = answers(response, failed=bool(row.get("error")))
    base = _common(row, request, response, place)
    base["messages"], prefill = without_prefill(base["messages"])
    for index, (message, reason) in enumerate(given):
        id_ = base["id"] if len(given) == 1 else f"{base['id']}#{index}"
        yield Interaction.model_validate({**base, **answer_fields(message, reason, prefill), "id": id_})


def _common(row: Mapping[str, Any], request: dict[str, Any], response: dict[str, Any], place: Place) -> dict[str, Any]:
    answered = response.get("choices") or response.get("output")
    status = claimed(*distinct(row, mapping(row.get("response")), response)).or_answered(bool(answered))
    metadata = first(row.get("metadata"), request.get("metadata"), response.get("metadata"))
    created = first(row.get("timestamp"), row.get("created_at"), response.get("created"), response.get("created_at"))
    extra = without(row, "request", "response", "body", "completion", "kwargs", "timestamp", "id", "custom_id")
    if row.get("object") == "chat.completion":
        extra = without(extra, *_ASKED, "choices", "created")
    else:
        extra |= {"request": without(request, *_ASKED), "response": without(response, "choices", "output", "created")}
    return {
        "id": first(text_or_none(row.get("id")), row.get("custom_id"), response.get("id"), place.source),
        "source": place.source,
        "role": named_role(metadata, row) or place.role,
        "messages": _conversation(request),
        "tools": tools_of(first(request.get("tools"), request.get("functions"))),
        **status.fields(),
        "provider": text_or_none(row.get("provider")),
        "model": text_or_none(first(response.get("model"), request.get("model"))),
        "duration_ms": first(
            number(first(row.get("duration_ms"), row.get("latency_ms"), row.get("delay_ms"))),
            between_ms(row.get("start_time"), row.get("end_time")),
        ),
        "max_tokens": whole(
            first(request.get("max_completion_tokens"), request.get("max_tokens"), request.get("max_output_tokens"))
        ),
        "timestamp": iso_time(created),
        "session": text_or_none(first(*(one.get(k) for one in (row, mapping(metadata)) for k in _SESSIONS))),
        "check": mapping(row.get("check")),
        "extra": {key: value for key, value in extra.items() if value not in ({}, None)},
    }


def _conversation(request: Mapping[str, Any]) -> list[Message]:
    if "messages" in request:
        return chat_messages(request["messages"], "messages")
    messages = items_as_messages(request["input"], "input")
    instructions = request.get("instructions")
    if isinstance(instructions, str) and instructions:
        messages = [Message(role="system", content=instructions), *messages]
    return asked(messages, "input")


def items_as_messages(value: Any, place: str) -> list[Message]:
    """Items of the Responses API as messages; consecutive calls of one turn are joined.

    Raises:
        NotAnInteraction: an item is not a text, a call or the output of a call.
    """
    value = decoded(value)
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    if not isinstance(value, list):
        raise NotAnInteraction(why.WrongType(place, kind(value), "a list of items"))
    messages: list[Message] = []
    for index, one in enumerate(value):
        item = mapping(one)
        match item.get("type", "message"):
            case "function_call":
                call = tool_call(item | {"id": item.get("call_id")}, f"{place}[{index}]")
                last = messages.pop() if messages and messages[-1].role == "assistant" else None
                before = last or Message(role="assistant", content="")
                messages.append(before.model_copy(update={"tool_calls": [*before.tool_calls, call]}))
            case "function_call_output":
                text = content_text(item.get("output"), f"{place}[{index}].output")
                messages.append(Message(role="tool", content=text, tool_call_id=text_or_none(item.get("call_id"))))
            case "reasoning":
                continue
            case "message":
                messages.append(chat_message(without(item, "type", "id", "status"), f"{place}[{index}]"))
            case other:
                raise NotAnInteraction(why.UnknownType(f"{place}[{index}] is an item", plain(str(other), 40)))
    return messages


def answers(response: Mapping[str, Any], failed: bool = False) -> list[tuple[Message | None, str | None]]:
    """Yields message and finish reason of each choice, or of a Responses API answer."""
    if response.get("object") == "response":
        turns = [m for m in items_as_messages(response.get("output"), "response.output") if m.role == "assistant"]
        calls: list[ToolCall] = [call for turn in turns for call in turn.tool_calls]
        text = "".join(turn.content for turn in turns)
        reason = mapping(response.get("incomplete_details")).get("reason")
        done = "tool_calls" if calls else "stop"
        return [(Message(role="assistant", content=text, tool_calls=calls), finish_reason(reason) or done)]
    choices = response.get("choices")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        if response.get("error") is None and not failed:
            raise NotAnInteraction(why.FieldMissing("choices", "the response"))
        return [(None, None)]
    found: list[tuple[Message | None, str | None]] = []
    for index, one in enumerate(choices):
        choice = mapping(one)
        message = {"role": "assistant", **mapping(choice.get("message"))}
        found.append((chat_message(message, f"choices[{index}].message"), choice.get("finish_reason")))
    return found


def first_choice(
    response: Any, place: str, read: Callable[[Any, str], Message] = chat_message
) -> dict[str, Any] | None:
    """The answer's fields if `response` is a chat completion or an older text completion, else None."""
    choices = mapping(response).get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    choice = mapping(choices[0])
    message = {"role": "assistant", **mapping(choice.get("message"))}
    if "text" in choice:
        message["content"] = choice["text"]
    fields = answer_fields(read(message, f"{place}.choices[0].message"), choice.get("finish_reason"))
    if len(choices) > 1:
        fields["notes"] = [note.ChoicesNotKept(len(choices)).record()]
    return fields


def without_prefill(messages: list[Message]) -> tuple[list[Message], str]:
    """The request without a final assistant turn, and the text of that turn, which the answer continues."""
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        return messages[:-1], messages[-1].content
    return messages, ""


def answer_fields(message: Message | None, reason: str | None, prefill: str = "") -> dict[str, Any]:
    """Output, calls, reasoning and finish reason of an assistant message."""
    if message is None:
        return {"output": None}
    refusal = text_or_none(message.extra.get("refusal"))
    reasoning = first(message.extra.get("reasoning_content"), message.extra.get("reasoning"))
    said = message.content
    if prefill and said and not said.startswith(prefill):
        said = prefill + said
    return {
        "output": said or refusal or ("" if message.tool_calls else None),
        "output_calls": message.tool_calls,
        "reasoning": text_or_none(reasoning),
        "finish_reason": "refusal" if refusal and not message.content else finish_reason(reason),
    }
