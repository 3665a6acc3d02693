"""ShareGPT: {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", …}], "system": …, "tools": …}.

Source: the dataset documentation of LLaMA-Factory (`data/README.md`: human, gpt, observation,
function_call). Every gpt and function_call turn is an answer; the turns of one row share a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources import hermes
from journeyman.sources.fields import (
    NotAnInteraction,
    content_text,
    decoded,
    kind,
    mapping,
    tool_call,
    tools_of,
    without,
)
from journeyman.sources.openai_finetune import answered_row, with_system
from journeyman.sources.place import Place
from journeyman.sources.turns import asked

_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "observation": "tool",
    "tool": "tool", "function_response": "tool", "function": "tool", "tool_response": "tool", "ipython": "tool",
    "ai": "assistant", "developer": "system",
}  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    turns = row.get("conversations", row.get("conversation"))
    return isinstance(turns, list) and any(isinstance(turn, dict) and "from" in turn for turn in turns[:3])


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    name = "conversations" if "conversations" in row else "conversation"
    turns = row.get(name)
    if not isinstance(turns, list):
        raise NotAnInteraction(why.WrongType(name, kind(turns), "a list"))
    messages = with_system(row, [_message(turn, f"{name}[{index}]") for index, turn in enumerate(turns)])
    messages, tools = hermes.structured(messages)
    row = {**row, "tools": [*tools_of(row.get("tools")), *tools]}
    yield from answered_row(row, asked(messages, name), place, name)


def _message(value: Any, place: str) -> Message:
    turn = mapping(value)
    speaker = turn.get("from")
    extra = without(turn, "from", "value")
    if speaker == "function_call":
        calls = decoded(turn.get("value"))
        calls = calls if isinstance(calls, list) else [calls]
        return Message(
            role="assistant", content="", tool_calls=[tool_call(c, f"{place}.value") for c in calls], extra=extra
        )
    if not isinstance(speaker, str) or speaker.lower() not in _SPEAKERS:
        raise NotAnInteraction(why.UnknownRole(f"{place}.from"))
    return Message(
        role=_SPEAKERS[speaker.lower()], content=content_text(turn.get("value"), f"{place}.value"), extra=extra
    )
