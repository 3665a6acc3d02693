"""Answers within a long conversation, each with its history, whose tool results and length are limited.

For formats whose rows are whole sessions: those of coding agents, and trajectories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message, Note
from journeyman.sources.fields import NotAnInteraction
from journeyman.sources.learn import learned
from journeyman.sources.place import Place

CUT = "cut_characters"
"""In a message's extra: the number of characters cut from a tool result."""
LEFT_OUT = "left_out"
"""In a message's extra: the types of its parts that are not text."""

_CUT, _UNANSWERED = note.ToolResultsCut().record(), note.HistoryGap("the result of a call").record()

_TURN, _CALL = 30, 60
"""Characters of `<|im_start|>assistant … <|im_end|>` and of `<tool_call>{"name": …, "arguments": …}</tool_call>`."""


def cut_results(messages: Sequence[Message], limit: int) -> list[Message]:
    """The messages with the middle of long tool results cut out; a limit of 0 leaves them unchanged."""
    return [_cut(one, limit) if one.role == "tool" and limit else one for one in messages]


def _cut(message: Message, limit: int) -> Message:
    content = message.content
    if len(content) <= limit or CUT in message.extra:
        return message
    tail = limit // 4
    gone = len(content) - limit
    shown = f"{content[: limit - tail]}\n[… {gone} characters cut …]\n{content[len(content) - tail :]}"
    return message.model_copy(update={"content": shown, "extra": {**message.extra, CUT: gone}})


def cut_notes(messages: Sequence[Message]) -> list[Note]:
    """A note if a tool result was cut."""
    is_cut = any(CUT in one.extra for one in messages)
    return [_CUT] if is_cut else []


def characters(message: Message) -> int:
    """The approximate length of a message in a prompt, including the markup of the turn and its calls."""
    calls = sum(len(call.name) + len(json.dumps(call.arguments, default=str)) + _CALL for call in message.tool_calls)
    return len(message.content) + calls + _TURN


def is_longer(messages: Sequence[Message], limit: int) -> bool:
    total = 0
    for message in messages:
        total += characters(message)
        if total > limit:
            return True
    return False


def too_long(place: Place) -> NotAnInteraction:
    return NotAnInteraction(why.HistoryTooLong(place.max_history))


def answered(before: Sequence[Message], answer: Message | None, place: Place, **fields: Any) -> Interaction:
    """One answer of a session with its history.

    Args:
        answer: None if the call failed without one.
        fields: fields of the Interaction; `notes` are extended.

    Raises:
        NotAnInteraction: the history is incomplete or too long, or the answer is to something that is not text.
    """
    messages = cut_results(before, place.cut_tool_results)
    if is_longer(messages, place.max_history):
        raise too_long(place)
    turns = [one for one in messages if one.role != "system"]
    if not any(one.role in ("user", "tool") for one in turns):
        raise NotAnInteraction(why.HistoryBroken("no_user_message"))
    if turns[0].role == "tool":
        raise NotAnInteraction(why.HistoryBroken("starts_at_result"))
    if answer is not None and answer.extra.get(LEFT_OUT):
        raise NotAnInteraction(why.NotText("the answer", _named(answer.extra[LEFT_OUT])))
    if now := _left_out(_since_the_last_answer(turns)):
        raise NotAnInteraction(why.NotText("what it answers", _named(now)))
    notes = [*fields.pop("notes", []), *_unanswered(turns)]
    if gone := _left_out(turns):
        notes.append(note.PartsNotKept(f"{_named(gone)} in earlier turns").record())
    return Interaction(
        source=place.source,
        messages=messages,
        output=_output(answer),
        output_calls=answer.tool_calls if answer is not None else [],
        notes=notes,
        **fields,
    )


def _output(answer: Message | None) -> str | None:
    if answer is None:
        return None
    return answer.content or ("" if answer.tool_calls else None)


def _since_the_last_answer(turns: Sequence[Message]) -> list[Message]:
    start = next((index for index in range(len(turns), 0, -1) if turns[index - 1].role == "assistant"), 0)
    return list(turns[start:])


def _left_out(turns: Sequence[Message]) -> list[str]:
    return list(dict.fromkeys(part for one in turns for part in one.extra.get(LEFT_OUT, ())))


def _named(parts: Sequence[str]) -> str:
    return ", ".join(repr(part) for part in parts)


def _unanswered(turns: Sequence[Message]) -> list[Note]:
    results = {one.tool_call_id for one in turns if one.role == "tool"}
    if None in results:  # without ids the missing ones are unknown
        return []
    open_ = {call.id for one in turns for call in one.tool_calls} - results
    return [_UNANSWERED] if open_ else []


def answers_of(
    messages: Sequence[Message], place: Place, by_turn: Mapping[int, Mapping[str, Any]] | None = None, **fields: Any
) -> Iterator[Interaction | NotAnInteraction]:
    """Yields every assistant turn of a conversation that is to be trained on, each as an answer of one session.

    An assistant turn before the first user turn (a greeting) is not an answer; it stays in the history.

    Args:
        by_turn: index of a turn → fields of its Interaction only.

    Raises:
        NotAnInteraction: there is no such turn.
    """
    session = fields.pop("session", None) or place.source
    messages = cut_results(messages, place.cut_tool_results)
    found = False
    for index, turn in enumerate(messages):
        spoken = any(one.role in ("user", "tool") for one in messages[:index])
        if turn.role != "assistant" or not spoken or not learned(turn.extra, f"messages[{index}]"):
            continue
        found = True
        one = {**fields, **(by_turn or {}).get(index, {}), "id": place.source, "session": session}
        try:
            yield answered(messages[:index], turn, place, **one)
        except NotAnInteraction as reason:
            yield reason
    if not found:
        raise NotAnInteraction(why.NoAnswer())
