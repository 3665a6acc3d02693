"""Fine-tuning lines: {"messages": […], "tools": […]}; every assistant turn that is not marked otherwise is an answer.

Source: OpenAI's guide to supervised fine-tuning ("chat format"), and the chat formats of TRL, Axolotl and
LLaMA-Factory: `system` next to the messages, an answer in a separate field, turns marked by weight, train or
loss_mask. The turns of one line share a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    decoded,
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
from journeyman.sources.learn import ANSWER_FIELDS, LEARN_FIELDS, learned
from journeyman.sources.openai_chat import answer_fields
from journeyman.sources.place import Place
from journeyman.sources.status import STATUS_FIELDS, Status, claimed, of_word
from journeyman.sources.turns import asked, chat_messages, turns_of

SESSIONS = (
    "session_id",
    "conversation_id",
    "thread_id",
    "sessionId",
    "conversationId",
    "threadId",
    "run_id",
    "trace_id",
)
_READ = (
    "tools", "functions", "id", "check", "role", "tool_calls", "provider", "model", "finish_reason", "max_tokens",
    "duration_ms", "latency_ms", "timestamp", "created_at", *SESSIONS,
)  # fmt: skip
_SYSTEM = ("system", "system_prompt", "systemPrompt", "system_message")


def claims(row: Mapping[str, Any]) -> bool:
    return isinstance(decoded(row.get("messages")), list) and "choices" not in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    messages = with_system(row, chat_messages(row.get("messages"), "messages"))
    yield from answered_row(row, messages, place, "messages")


def answered_row(
    row: Mapping[str, Any], messages: list[Message], place: Place, name: str
) -> Iterator[Interaction | NotAnInteraction]:
    """Yields the answers of one row: its answer field if it has one, else its assistant turns.

    Raises:
        NotAnInteraction: the row does not say what its answer is.
    """
    metadata = mapping(row.get("metadata"))
    fields = {
        "id": text_or_none(row.get("id")) or place.source,
        "role": named_role(row, metadata) or place.role,
        "tools": tools_of(first(row.get("tools"), row.get("functions"))),
        "provider": text_or_none(row.get("provider")),
        "model": text_or_none(row.get("model")),
        "duration_ms": number(first(row.get("duration_ms"), row.get("latency_ms"))),
        "timestamp": iso_time(first(row.get("timestamp"), row.get("created_at"))),
        "session": session_of(row, metadata),
        "max_tokens": whole(row.get("max_tokens")),
        "check": mapping(row.get("check")),
        "extra": without(row, name, *_READ, *_SYSTEM, *LEARN_FIELDS),
        **row_status(row).fields(),
    }
    beside = answer_beside(row, messages)
    reason = text_or_none(row.get("finish_reason"))
    if beside is None:
        yield from answered_turns(messages, place, reason, **fields)
    else:
        fields["extra"] = without(fields["extra"], *ANSWER_FIELDS)
        yield Interaction(
            source=place.source, messages=asked(messages, name), **{**fields, **answer_fields(beside, reason)}
        )


def row_status(row: Mapping[str, Any]) -> Status:
    """The row's status; `label` is 0 or 1 in rows of a prompt and a completion (unpaired preferences)."""
    label = row.get("label")
    if label in (0, 1, "0", "1") and not isinstance(label, bool) and "completion" in row:
        return claimed(row).also(of_word(bool(int(label)), "label"))
    return claimed(row)


def session_of(*places: Mapping[str, Any]) -> str | None:
    """The conversation that a row says it belongs to."""
    return text_or_none(first(*(place.get(name) for place in places for name in SESSIONS)))


def with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The conversation with the system prompt that is logged next to it.

    Raises:
        NotAnInteraction: the conversation has a different one.
    """
    named = [(name, row[name]) for name in _SYSTEM if isinstance(row.get(name), str) and row[name]]
    for name, text in named:
        if messages and messages[0].role == "system":
            if messages[0].content.strip() != text.strip():
                raise NotAnInteraction(why.DifferentSystemPrompts(name))
        else:
            messages = [Message(role="system", content=text), *messages]
    return messages


def answer_beside(row: Mapping[str, Any], messages: list[Message]) -> Message | None:
    """The answer in a separate field next to the conversation, or None if there is none.

    Raises:
        NotAnInteraction: several fields, or a field and the end of the conversation, contain different answers.
    """
    found = {name: row[name] for name in ANSWER_FIELDS if row.get(name) not in (None, "", [], {})}
    if not found and not (row.get("tool_calls") and messages[-1].role != "assistant"):
        return None
    if row.get("tool_calls"):
        found = {name: _with_calls(value, row["tool_calls"]) for name, value in (found or {"tool_calls": ""}).items()}
    answers = {name: _answer(value, name) for name, value in found.items()}
    name, answer = next(iter(answers.items()))
    if any(other.content != answer.content or other.tool_calls != answer.tool_calls for other in answers.values()):
        raise NotAnInteraction(why.DifferentAnswers(" and ".join(answers)))
    last = messages[-1]
    if last.role != "assistant":
        return answer
    if last.content.strip() == answer.content.strip() and not answer.tool_calls:
        return None
    raise NotAnInteraction(why.DifferentAnswers(name, in_conversation=True))


def _with_calls(value: Any, calls: Any) -> Any:
    """An answer's text together with the calls in a separate field."""
    message = {"content": value} if isinstance(value, str) else dict(mapping(value))
    return {**message, "tool_calls": message.get("tool_calls") or calls}


def _answer(value: Any, name: str) -> Message:
    value = decoded(value) if isinstance(value, str) and value.lstrip()[:2] in ("[{",) else value
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, Mapping):
        raise NotAnInteraction(why.WrongType(name, kind(value), "text or one message"))
    turns = turns_of({"role": "assistant", **value}, name)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise NotAnInteraction(
            why.NotAnAnswer(
                name, "several turns" if len(turns) != 1 else f"a turn of role {plain(turns[0].role, 40)!r}"
            )
        )
    return turns[0]


def answered_turns(
    messages: list[Message], place: Place, reason: str | None = None, **fields: Any
) -> Iterator[Interaction | NotAnInteraction]:
    """Yields an interaction for each assistant turn that follows a question; several of them share a session.

    Args:
        reason: the row's logged finish reason, which is that of its last turn.

    Raises:
        NotAnInteraction: there is no assistant turn to train on.
    """
    answers = [
        index
        for index, message in enumerate(messages)
        if message.role == "assistant" and any(before.role in ("user", "tool") for before in messages[:index])
    ]
    turns = [index for index in answers if learned(messages[index].extra, f"messages[{index}]")]
    if not turns:
        raise NotAnInteraction(why.MarkedNotToTrain(every_turn=True) if answers else why.NoAnswer())
    for index in turns:
        turn = messages[index]
        one = {**fields, **answer_fields(turn, reason if index == len(messages) - 1 else None)}
        if any(name in STATUS_FIELDS for name in turn.extra):
            said = Status(fields.get("succeeded"), list(fields.get("errors", ())), list(fields.get("notes", ())))
            one |= said.also(claimed(turn.extra)).fields()
        if index + 1 < len(messages):
            one["followed_by"] = messages[index + 1].role
        if len(turns) > 1:
            one |= {"session": fields.get("session") or place.source}
        yield Interaction(source=place.source, messages=messages[:index], **one)
