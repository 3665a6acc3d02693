"""Anthropic messages: request and response pairs, and batch results joined with their params.

Source: Anthropic's Messages API reference (content blocks, stop reasons) and Message Batches. Blocks become
OpenAI's shape: tool_use → a tool call, tool_result → a tool turn, thinking → reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
    tools_of,
    whole,
    without,
)
from journeyman.sources.openai_chat import without_prefill
from journeyman.sources.place import Place
from journeyman.sources.status import claimed, distinct
from journeyman.sources.turns import asked

_ASKED = ("messages", "system", "tools", "model", "max_tokens")
_ANSWERED = ("content", "model", "role", "type", "stop_reason", "id")


def claims(row: Mapping[str, Any]) -> bool:
    result = mapping(row.get("result"))
    return _is_message(_response(row)) or ("message" in result or result.get("type") in ("errored", "expired"))


def _is_message(response: Mapping[str, Any]) -> bool:
    return response.get("type") in ("message", "error") and ("content" in response or "error" in response)


def _response(row: Mapping[str, Any]) -> dict[str, Any]:
    response = mapping(first(row.get("response"), row.get("message")))
    return mapping(response.get("body")) or response


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    request = mapping(first(row.get("request"), row.get("params"), row.get("body")))
    request = mapping(first(request.get("body"), request.get("params"))) or request or dict(row)
    result = mapping(row.get("result"))
    response = mapping(result.get("message")) or _response(row)
    if "messages" not in request:
        raise NotAnInteraction(why.NoRequest())
    status = claimed(*distinct(row, mapping(row.get("response")), without(response, "type"), _outcome(result)))
    answer, reasoning = _turn("assistant", response.get("content"), "content") if response else ([], None)
    metadata = first(row.get("metadata"), request.get("metadata"))
    messages, prefill = without_prefill(_conversation(request))
    yield Interaction(
        id=first(text_or_none(row.get("id")), text_or_none(row.get("custom_id")), response.get("id"), place.source),
        source=place.source,
        role=named_role(metadata, row) or place.role,
        messages=messages,
        output=_continued(prefill, answer[0].content) if answer else None,
        output_calls=answer[0].tool_calls if answer else [],
        reasoning=reasoning,
        tools=tools_of(request.get("tools")),
        **status.or_answered(bool(answer)).fields(),
        provider=text_or_none(row.get("provider")) or "anthropic",
        model=text_or_none(first(response.get("model"), request.get("model"))),
        duration_ms=first(number(row.get("duration_ms")), between_ms(row.get("start_time"), row.get("end_time"))),
        max_tokens=whole(request.get("max_tokens")),
        finish_reason=finish_reason(response.get("stop_reason")),
        timestamp=iso_time(first(row.get("timestamp"), row.get("created_at"))),
        session=text_or_none(first(mapping(metadata).get("session_id"), row.get("session_id"))),
        check=mapping(row.get("check")),
        extra={
            **without(row, "request", "response", "params", "result", "message", "body", "id", "custom_id", *_ASKED),
            "request": without(request, *_ASKED),
            "response": without(response, *_ANSWERED),
        },
    )


def _outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a batch result: succeeded, errored, canceled or expired."""
    if not result:
        return {}
    return {"status": result.get("type"), "error": mapping(result.get("error")).get("error", result.get("error"))}


def _continued(prefill: str, said: str) -> str:
    """Puts a prefill, the start of the answer, before it; Anthropic's answer contains only the rest."""
    return said if not prefill or said.startswith(prefill) else prefill + said


def _conversation(request: Mapping[str, Any]) -> list[Message]:
    turns = decoded(request["messages"])
    if not isinstance(turns, list):
        raise NotAnInteraction(why.WrongType("messages", kind(turns), "a list"))
    messages: list[Message] = []
    system = content_text(request.get("system"), "system")
    if system:
        messages.append(Message(role="system", content=system))
    for index, one in enumerate(turns):
        turn = mapping(one)
        role = turn.get("role")
        if not isinstance(role, str):
            raise NotAnInteraction(why.FieldMissing("role", f"messages[{index}]"))
        messages += _turn(role, turn.get("content"), f"messages[{index}].content")[0]
    return asked(messages, "messages")


def _turn(role: str, content: Any, place: str) -> tuple[list[Message], str | None]:
    """The messages of one turn (tool results before the text), and its reasoning."""
    content = decoded(content) if not isinstance(content, str) else content
    if content is None or isinstance(content, str):
        return [Message(role=role, content=content or "")], None
    text: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    thoughts: list[str] = []
    for index, one in enumerate(content if isinstance(content, list) else [content]):
        block, here = mapping(one), f"{place}[{index}]"
        match block.get("type", "text"):
            case "tool_use":
                name = block.get("name")
                if not isinstance(name, str) or not name:
                    raise NotAnInteraction(why.FieldMissing("name", here))
                calls.append(
                    ToolCall(name=name, arguments=decoded(block.get("input")), id=text_or_none(block.get("id")))
                )
            case "tool_result":
                result = content_text(block.get("content"), f"{here}.content")
                flags = {"is_error": True} if block.get("is_error") else {}
                id_ = text_or_none(block.get("tool_use_id"))
                results.append(Message(role="tool", content=result, tool_call_id=id_, extra=flags))
            case "thinking" | "redacted_thinking":
                thoughts.append(text_or_none(block.get("thinking")) or "")
            case _:
                text.append(content_text([one], here))
    own = [Message(role=role, content="".join(text), tool_calls=calls)] if text or calls or not results else []
    return [*results, *own], "".join(thoughts) or None
