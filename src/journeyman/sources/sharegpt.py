"""ShareGPT: {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", …}], "system": …, "tools": …}.

Source: the dataset documentation of LLaMA-Factory (`data/README.md`: human, gpt, observation,
function_call). Every gpt and function_call turn is an answer; the turns of one row share a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    content_text,
    decoded,
    kind,
    mapping,
    named_role,
    text_or_none,
    tool_call,
    tools_of,
    without,
)
from journeyman.sources.openai_finetune import answered_turns
from journeyman.sources.place import Place
from journeyman.sources.turns import asked

_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "observation": "tool",
    "tool": "tool", "function_response": "tool",
}  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    turns = row.get("conversations", row.get("conversation"))
    return isinstance(turns, list) and any(isinstance(turn, dict) and "from" in turn for turn in turns[:3])


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    turns = row.get("conversations", row.get("conversation"))
    if not isinstance(turns, list):
        raise NotAnInteraction(f"conversations is {kind(turns)}, not a list")
    messages = [_message(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    if text_or_none(row.get("system")):
        messages = [Message(role="system", content=row["system"]), *messages]
    yield from answered_turns(
        asked(messages, "conversations"),
        place,
        id=text_or_none(row.get("id")) or place.source,
        role=named_role(row, row.get("metadata")) or place.role,
        tools=tools_of(row.get("tools")),
        check=mapping(row.get("check")),
        extra=without(row, "conversations", "conversation", "system", "tools", "id", "check", "role"),
    )


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
        raise NotAnInteraction(f"{place}.from is no speaker that is known")
    return Message(
        role=_SPEAKERS[speaker.lower()], content=content_text(turn.get("value"), f"{place}.value"), extra=extra
    )
