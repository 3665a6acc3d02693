"""What was said in a request, for the log: redacted as the engine gets it and answers, before values are restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from journeyman.serving.dialects.pieces import CALL, REASONING, choice_of, pieces_of


class Contents:
    """The conversation of a request, and its answers as they arrive.

    Args:
        messages: redacted.
        redacted: replaces what an answer contains of its own accord.
    """

    def __init__(self, messages: Sequence[Mapping[str, Any]], redacted: Callable[[Any], Any]) -> None:
        self._messages, self._redacted = messages, redacted
        self._answers: dict[int, _Answer] = {}

    def add(self, event: Mapping[str, Any], number: int) -> None:
        """Adds the engine's answer, or a chunk of it, to the answer with this number."""
        self._answers.setdefault(number, _Answer()).add(event)

    def fields(self) -> dict[str, Any]:
        """`messages` and `answers`, for a log line."""
        answers = [self._redacted(answer.fields()) for _, answer in sorted(self._answers.items())]
        return {"messages": self._messages, "answers": answers}


class _Answer:
    def __init__(self) -> None:
        self._texts = {"reasoning": "", "text": ""}
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        for piece in pieces_of(choice_of(event)):
            if piece.kind == CALL:
                call = self._calls.setdefault(piece.number, {"name": "", "arguments": ""})
                call["name"] += piece.name
                call["arguments"] += piece.text
            else:
                self._texts["reasoning" if piece.kind == REASONING else "text"] += piece.text

    def fields(self) -> dict[str, Any]:
        calls = [call for _, call in sorted(self._calls.items())]
        return {name: text for name, text in self._texts.items() if text} | ({"tool_calls": calls} if calls else {})
