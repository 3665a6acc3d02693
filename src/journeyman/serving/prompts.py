"""Renders requests with the base's chat template before the engine sees them; refuses what it does not support."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import Base
from journeyman.records import tool_name
from journeyman.rendering.control import ControlTokens
from journeyman.rendering.losses import lost_tool, lost_turn, turns_of
from journeyman.rendering.runs import RunLimit
from journeyman.rendering.template import template_of
from journeyman.serving.errors import RequestError


class PromptCheck:
    """The chat template and the control tokens of the served file.

    Raises:
        InputError: the file has no chat template.
    """

    def __init__(self, base: Base) -> None:
        self._template = template_of(base.tokenizer, base.path.name)
        self.control = ControlTokens(base.tokenizer, self._template)
        self._run_limit = RunLimit(base.tokenizer)

    def check_system_prompts(self, prompts: Mapping[str, str]) -> None:
        """Raises an InputError if a trained system prompt contains a control token; curate lets none through."""
        for role, prompt in prompts.items():
            if token := self.control.in_text(prompt):
                raise InputError(
                    f"the system prompt of {plain(role, 80)} contains the control token {token}",
                    "Run: journeyman curate --redo",
                )

    def text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt of a conversation.

        Raises:
            InputError: the template refuses it.
        """
        return self._template.render(messages, add_generation_prompt=True)

    def refuse_control_tokens(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> None:
        """Raises a RequestError if a text would become a token with which its author could impersonate others."""
        if found := self.control.find(messages, tools):
            place = found.place.split(",")[0]
            raise RequestError(400, f"{found}, which only the chat template may write", place, "control_token")

    def refuse_lost(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> None:
        """Raises a RequestError if the template does not support the conversation or omits its tools.

        Args:
            messages: as sent to the engine, including the system prompt.
        """
        try:
            text = self._template.render(list(map(_decoded, messages)), add_generation_prompt=True, tools=tools)
        except InputError as error:
            raise RequestError(400, f"messages: {error.what}", "messages") from error
        if length := self._run_limit.exceeded_by(text):
            raise RequestError(400, f"messages: {length:,} characters in a row are one piece of text", "messages")
        calls = [call for turn in messages for call in turn.get("tool_calls", [])]
        for param, named in (("tools", tools), ("messages", calls)):
            if (lost := lost_tool(text, list(map(tool_name, named)))) is not None:
                raise RequestError(
                    400, f"{param}: the base's chat template omits the tool {lost!r}, so the model cannot see it",
                    param, "unsupported_parameter",
                )  # fmt: skip
        if (place := lost_turn(text, turns_of(messages), self._template.served.source)) is not None:
            role = messages[place]["role"]
            raise RequestError(
                400,
                f"messages: the base's chat template leaves out or changes the text of a {role} message",
                "messages",
            )


def _decoded(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn in the form that chat templates expect: arguments of calls are values, not text."""
    if not turn.get("tool_calls"):
        return turn
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}
