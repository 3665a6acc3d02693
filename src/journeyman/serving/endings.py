"""Whether an answer of the engine is complete: what was cut off must not look like an answer or like a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError

NO_CALL = "the model made no tool call, although tool_choice requires one"
_COMPLETE = ("stop", "tool_calls")
_FINISHES = (*_COMPLETE, "length")
"""The finish reasons that clients are told. Others, such as vLLM's `abort`, are failures of the engine."""


@dataclass
class _Choice:
    finish: str | None = None
    arguments: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


class Endings:
    """How the choices of an answer end: fed with the whole answer, or with each chunk of a stream.

    Args:
        must_call: an answer without a tool call is an error.
    """

    def __init__(self, *, must_call: bool = False) -> None:
        self._must_call = must_call
        self._choices: dict[int, _Choice] = {}

    def feed(self, event: Mapping[str, Any]) -> None:
        """Notes an answer or a chunk, before the client gets it.

        Raises:
            RequestError: a choice ends with an unknown reason, or as complete with a call whose arguments are not JSON
                or without the required call.
        """
        for place, choice in enumerate(event.get("choices") or ()):
            known = self._choices.setdefault(choice.get("index", place), _Choice())
            said = choice.get("message") or choice.get("delta") or {}
            for number, call in enumerate(said.get("tool_calls") or ()):
                number, function = call.get("index", number), call.get("function") or {}
                known.names[number] = known.names.get(number, "") + (function.get("name") or "")
                known.arguments[number] = known.arguments.get(number, "") + (function.get("arguments") or "")
            if (finish := choice.get("finish_reason")) is not None:
                self._check(finish, known)
                known.finish = finish

    def check(self) -> None:
        """Raises a RequestError if the answer has no choice, or one without a finish reason."""
        if not self._choices or any(one.finish is None for one in self._choices.values()):
            raise RequestError(502, "the engine's answer ends without a finish_reason: it may be cut off")

    def _check(self, finish: Any, known: _Choice) -> None:
        if finish not in _FINISHES:
            raise RequestError(502, f"the engine did not complete the answer: finish_reason {plain(str(finish), 40)!r}")
        if finish not in _COMPLETE:
            return
        if self._must_call and not known.arguments:
            raise RequestError(502, NO_CALL, "tool_choice", "no_tool_call")
        for number, arguments in known.arguments.items():
            if not _is_json(arguments):
                name = plain(known.names[number], 80)
                raise RequestError(
                    502, f"the model's call of {name!r} is not complete: its arguments are not JSON; a text of stop "
                    "may have ended it", None, "incomplete_call",
                )  # fmt: skip


def _is_json(arguments: str) -> bool:
    """Whether a call's arguments can be read; empty ones stand for an empty object."""
    try:
        json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return False
    return True
