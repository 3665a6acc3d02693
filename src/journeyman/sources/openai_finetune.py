"""OpenAI fine-tuning lines: {"messages": […], "tools": […]}; every assistant turn of weight 1 is an answer.

Source: OpenAI's guide to supervised fine-tuning, "chat format". The turns of one line share a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    first,
    mapping,
    named_role,
    text_or_none,
    tools_of,
    without,
)
from journeyman.sources.learn import learned
from journeyman.sources.openai_chat import answer_fields
from journeyman.sources.place import Place
from journeyman.sources.turns import chat_messages


def claims(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("messages"), list) and not {"response", "choices", "completion"} & row.keys()


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    messages = chat_messages(row.get("messages"), "messages")
    extra = without(row, "messages", "tools", "functions", "id", "check", "role")
    yield from answered_turns(
        messages,
        place,
        id=text_or_none(row.get("id")) or place.source,
        role=named_role(row, row.get("metadata")) or place.role,
        tools=tools_of(first(row.get("tools"), row.get("functions"))),
        check=mapping(row.get("check")),
        extra=extra,
    )


def answered_turns(messages: list[Message], place: Place, **fields: Any) -> Iterator[Interaction | NotAnInteraction]:
    """An interaction for each assistant turn that follows a question; ids number the turns where there are several.

    Raises:
        NotAnInteraction: no assistant turn is there to learn from.
    """
    turns = [
        index
        for index, message in enumerate(messages)
        if message.role == "assistant"
        and learned(message.extra, f"messages[{index}]")
        and any(before.role in ("user", "tool") for before in messages[:index])
    ]
    if not turns:
        raise NotAnInteraction("no assistant message answers a user message")
    for index in turns:
        one = {**fields, **answer_fields(messages[index], None)}
        if len(turns) > 1:
            one |= {"session": fields.get("session") or place.source}
        yield Interaction(source=place.source, messages=messages[:index], **one)
