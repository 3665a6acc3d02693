"""LangSmith runs: bulk exports (Parquet), the runs query's JSON, and JSONL.

Source: LangSmith's "run data format" and LangChain's serialized messages ({"lc": 1, "kwargs": {…}}). Only
runs of type llm are a model's call; inputs and outputs may hold JSON as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    first,
    iso_time,
    kind,
    mapping,
    named_role,
    one_of,
    text_or_none,
    tools_of,
    whole,
    without,
)
from journeyman.sources.openai_chat import answer_fields, first_choice
from journeyman.sources.place import Place
from journeyman.sources.turns import asked, chat_message, chat_messages

_TYPES = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool", "chat": "user", "function": "tool",
    "HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool",
    "HumanMessageChunk": "user", "AIMessageChunk": "assistant",
}  # fmt: skip
_READ = ("id", "inputs", "outputs", "error", "start_time", "end_time", "session_id", "trace_id", "extra")


def claims(row: Mapping[str, Any]) -> bool:
    return "run_type" in row and "inputs" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    if row.get("run_type") not in ("llm", "chat_model"):
        raise NotAnInteraction(f"a run of type {str(row.get('run_type'))[:40]!r}: no model's call")
    inputs, outputs, extra = mapping(row.get("inputs")), mapping(row.get("outputs")), mapping(row.get("extra"))
    metadata, settings = mapping(extra.get("metadata")), mapping(extra.get("invocation_params"))
    error = text_or_none(row.get("error"))
    tags = row.get("tags")
    thread = first(metadata.get("thread_id"), metadata.get("session_id"), metadata.get("conversation_id"))
    yield Interaction.model_validate({
        "id": text_or_none(row.get("id")) or place.source,
        "source": place.source,
        "role": named_role(metadata, tags) or place.role,
        "messages": _conversation(inputs),
        "tools": tools_of(first(settings.get("tools"), inputs.get("tools"), settings.get("functions"))),
        "succeeded": error is None,
        "errors": [] if error is None else [error],
        "provider": text_or_none(metadata.get("ls_provider")),
        "model": text_or_none(first(metadata.get("ls_model_name"), settings.get("model"), settings.get("model_name"))),
        "duration_ms": between_ms(row.get("start_time"), row.get("end_time")),
        "max_tokens": whole(first(settings.get("max_tokens"), metadata.get("ls_max_tokens"))),
        "timestamp": iso_time(row.get("start_time")),
        "session": text_or_none(first(thread, row.get("trace_id"))),
        "extra": without(row, *_READ) | without({"extra": extra}),
        **_answer(outputs, error),
    })  # fmt: skip


def _conversation(inputs: Mapping[str, Any]) -> list[Message]:
    messages = decoded(inputs.get("messages"))
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], list):
        messages = messages[0]
    if isinstance(messages, list):
        return asked([_message(one, f"inputs.messages[{i}]") for i, one in enumerate(messages)], "inputs.messages")
    prompts = decoded(inputs.get("prompts"))
    if isinstance(prompts, list) and prompts and isinstance(prompts[0], str):
        return chat_messages(prompts[0], "inputs.prompts")
    text = first(inputs.get("prompt"), inputs.get("input"))
    if isinstance(text, str):
        return [Message(role="user", content=text)]
    raise NotAnInteraction(f"inputs.messages is {kind(messages)}, not a list")


def _message(value: Any, place: str) -> Message:
    """A message in LangChain's serialized shape, in its `type` and `data` shape, or in OpenAI's."""
    one = mapping(value)
    if "kwargs" in one:
        path = one.get("id")
        name = path[-1] if isinstance(path, list) and path else None
        one = {"type": name, **mapping(one["kwargs"])}
        one["type"] = name if one_of(name, _TYPES) else one["type"]
    elif "data" in one and "type" in one:
        one = {**mapping(one["data"]), "type": one["type"]}
    if "role" not in one and one_of(one.get("type"), _TYPES):
        one = {**one, "role": _TYPES[one["type"]]}
    more = mapping(one.get("additional_kwargs"))
    calls = first(one.get("tool_calls") or None, more.get("tool_calls"), None)
    shaped = {**one, "tool_calls": calls, "function_call": None if calls else more.get("function_call")}
    return chat_message(without(shaped, "type", "additional_kwargs", "id", "example"), place)


def _answer(outputs: Mapping[str, Any], error: str | None) -> dict[str, Any]:
    generations = decoded(outputs.get("generations"))
    while isinstance(generations, list) and generations and isinstance(generations[0], list):
        generations = generations[0]
    if isinstance(generations, list) and generations:
        one = mapping(generations[0])
        info = mapping(one.get("generation_info"))
        if mapping(one.get("message")):
            return answer_fields(_message(one["message"], "outputs.generations[0].message"), _reason(one, info))
        return {"output": text_or_none(one.get("text")), "finish_reason": text_or_none(info.get("finish_reason"))}
    completion = first_choice(outputs, "outputs", _message)
    if completion is not None:
        return completion
    messages = outputs.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    message = first(outputs.get("message"), last, outputs.get("output"))
    if isinstance(message, dict):
        return answer_fields(_message({"role": "assistant", **message}, "outputs.message"), None)
    if isinstance(message, str):
        return {"output": message}
    if "content" in outputs:
        return answer_fields(_message({"role": "assistant", **outputs}, "outputs"), None)
    if error is not None:
        return {"output": None}
    raise NotAnInteraction("outputs hold no generation, no choice and no message")


def _reason(generation: Mapping[str, Any], info: Mapping[str, Any]) -> str | None:
    metadata = mapping(mapping(mapping(generation.get("message")).get("kwargs")).get("response_metadata"))
    return text_or_none(first(info.get("finish_reason"), metadata.get("finish_reason"), metadata.get("stop_reason")))
