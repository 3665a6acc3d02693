"""Prompts with completions or preferences, as texts or messages: TRL's datasets and OpenAI's preference files.

Source: TRL's "dataset formats and types" (prompt-completion, preference, unpaired preference) and OpenAI's guide to
preference fine-tuning. The chosen answer is trained on; the rejected one is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import NotAnInteraction, decoded, first, kind, mapping, without
from journeyman.sources.openai_finetune import answered_row, with_system
from journeyman.sources.place import Place
from journeyman.sources.turns import asked, chat_messages, turns_of

_CHOSEN = ("chosen", "preferred_output")
_REJECTED = ("rejected", "non_preferred_output")

_PAIR = note.ChoicesNotKept(2, preference=True).record()


def claims(row: Mapping[str, Any]) -> bool:
    if any(name in row for name in _CHOSEN):
        return True
    return isinstance(decoded(row.get("prompt")), list) and "completion" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    name = next((one for one in _CHOSEN if one in row), "completion")
    prompt, answer = _prompt(row), _turns(row.get(name), name)
    shared = 0
    if not prompt:  # TRL's implicit prompt: both answers begin with it
        if len(answer) < 2:
            raise NotAnInteraction(why.FieldMissing(f"prompt, and {name} is not a conversation"))
        prompt, answer = answer[:-1], answer[-1:]
    elif answer[: len(prompt)] == prompt:
        shared = len(prompt)
    answer = answer[shared:]
    if len(answer) != 1 or answer[0].role != "assistant":
        raise NotAnInteraction(why.NotAnAnswer(name, f"{len(answer)} turns after the prompt"))
    kept = without(row, "prompt", "input", *_CHOSEN, *_REJECTED, "completion", "messages")
    completion_turn = {"content": answer[0].content, "tool_calls": [call.as_openai() for call in answer[0].tool_calls]}
    whole = with_system(row, asked(prompt, "the prompt"))
    for one in answered_row({**kept, "completion": completion_turn}, whole, place, "messages"):
        yield _noted(one, row) if isinstance(one, Interaction) else one


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    given = row.get("input")
    value = first(row.get("prompt"), row.get("messages"), mapping(given).get("messages"), given, row.get("question"))
    return [] if value is None else chat_messages(value, "prompt")


def _turns(value: Any, place: str) -> list[Message]:
    value = decoded(value) if isinstance(value, str) and value.lstrip()[:2] == "[{" else value
    if isinstance(value, str) and value:
        if "\n\nAssistant:" in value:
            raise NotAnInteraction(why.NotAnAnswer(place, "a whole dialogue in one text (split it into messages)"))
        return [Message(role="assistant", content=value)]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not value:
        raise NotAnInteraction(why.WrongType(place, kind(value) if value else "empty", "an answer"))
    return [
        turn for i, one in enumerate(value) for turn in turns_of({"role": "assistant", **mapping(one)}, f"{place}[{i}]")
    ]


def _noted(one: Interaction, row: Mapping[str, Any]) -> Interaction:
    if not any(row.get(name) for name in _REJECTED):
        return one
    return one.model_copy(update={"notes": [*one.notes, _PAIR]})
