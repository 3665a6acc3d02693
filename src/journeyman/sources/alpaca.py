"""Alpaca: {"instruction": …, "input": …, "output": …, "system": …, "history": [[question, answer], …]}.

Source: the Stanford Alpaca repository and the dataset documentation of LLaMA-Factory. Also the older
{"prompt": …, "completion": …} of OpenAI's legacy fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.records import Interaction, Message
from journeyman.sources.fields import NotAnInteraction, content_text, kind, mapping, named_role, text_or_none, without
from journeyman.sources.place import Place


def claims(row: Mapping[str, Any]) -> bool:
    return ("instruction" in row and "output" in row) or (
        isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str)
    )


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    question = content_text(row.get("instruction", row.get("prompt")), "instruction")
    given = content_text(row.get("input"), "input")
    if not question and not given:
        raise NotAnInteraction("instruction and input are empty")
    messages = [*_system(row), *_history(row.get("history"))]
    messages.append(Message(role="user", content="\n".join(part for part in (question, given) if part)))
    yield Interaction(
        id=text_or_none(row.get("id")) or place.source,
        source=place.source,
        role=named_role(row, row.get("metadata")) or place.role,
        messages=messages,
        output=content_text(row.get("output", row.get("completion")), "output"),
        succeeded=True,
        check=mapping(row.get("check")),
        extra=without(row, "instruction", "input", "output", "prompt", "completion", "system", "history", "id", "role"),
    )


def _system(row: Mapping[str, Any]) -> list[Message]:
    system = text_or_none(row.get("system"))
    return [Message(role="system", content=system)] if system else []


def _history(value: Any) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotAnInteraction(f"history is {kind(value)}, not a list")
    messages = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise NotAnInteraction(f"history[{index}] is no pair of question and answer")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append(Message(role=role, content=content_text(text, f"history[{index}]")))
    return messages
