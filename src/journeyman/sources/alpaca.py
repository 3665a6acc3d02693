"""Alpaca: {"instruction": …, "input": …, "output": …, "system": …, "history": [[question, answer], …]}.

Source: the Stanford Alpaca repository and the dataset documentation of LLaMA-Factory. Also the older
{"prompt": …, "completion": …} of OpenAI's legacy fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import NotAnInteraction, content_text, kind, without
from journeyman.sources.learn import ANSWER_FIELDS
from journeyman.sources.openai_finetune import answered_row, with_system
from journeyman.sources.place import Place


def claims(row: Mapping[str, Any]) -> bool:
    return ("instruction" in row and bool({"output", "response", "answer"} & row.keys())) or (
        isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str)
    )


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    question = content_text(row.get("instruction", row.get("prompt")), "instruction")
    given = content_text(row.get("input"), "input")
    if not question and not given:
        raise NotAnInteraction(why.FieldEmpty("instruction and input"))
    messages = with_system(row, _history(row.get("history")))
    messages.append(Message(role="user", content="\n".join(part for part in (question, given) if part)))
    if all(row.get(name) in (None, "") for name in ANSWER_FIELDS):
        raise NotAnInteraction(why.FieldEmpty("output"))
    rest = without(row, "instruction", "input", "prompt", "history")
    yield from answered_row(rest, messages, place, "history")


def _history(value: Any) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotAnInteraction(why.WrongType("history", kind(value), "a list"))
    messages = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise NotAnInteraction(why.WrongType(f"history[{index}]", kind(pair), "a pair of question and answer"))
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append(Message(role=role, content=content_text(text, f"history[{index}]")))
    return messages
