"""Finds control tokens of the base in untrusted text: curate drops the row, evaluate refuses it, serve returns 400.

A tokenizer recognizes such a token anywhere in a text, so a message that contains `<|im_end|>` could end its turn and
begin another one. Such text is never encoded in another way: training, evaluation and serving refuse the same texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from journeyman.foreign import plain
from journeyman.models.base import TokenizerData
from journeyman.records import Message, ToolCall
from journeyman.rendering.any_of import any_of
from journeyman.rendering.endings import end_tokens
from journeyman.rendering.markers import text_markers
from journeyman.rendering.template import ChatTemplate
from journeyman.rendering.token_types import control_texts

_MOST_NESTED_JSON = 1 << 20


class Found(NamedTuple):
    """A control token and its place, such as `messages[2].content` or `tools[0].function.name`."""

    place: str
    token: str

    def __str__(self) -> str:
        place, token = self.shown()
        return f"{place} contains the control token {token}"

    def shown(self) -> tuple[str, str]:
        """Place and token, made safe for display."""
        return plain(self.place, 100), plain(self.token)


class ControlTokens:
    """The control tokens that a base declares, or that the engine recognizes by their names.

    Args:
        template: its chat template; texts that mark its turns are no tokens, but are treated like them.
    """

    def __init__(self, data: TokenizerData, template: ChatTemplate | None = None) -> None:
        texts = [*control_texts(data), *end_tokens(data)]
        self.texts = list(dict.fromkeys(text for text in texts if text.strip()))
        if template is not None:
            self.texts += text_markers(template, ControlTokens(data).in_text)
        self.pattern = any_of(self.texts)
        marks = {char for text in self.texts for char in text if not char.isalnum() and not char.isspace()}
        self._without_marks = str.maketrans(dict.fromkeys(marks, "x"))

    def in_text(self, text: str) -> str | None:
        """The first control token in a text, or None."""
        found = self.pattern.search(text)
        return found[0] if found else None

    def find(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = (), answer: Mapping[str, Any] | None = None
    ) -> Found | None:
        """The first control token in any text of a conversation: contents, roles, names, ids, arguments, definitions.

        Arguments that are JSON text are searched both as they are and decoded, so that escapes hide nothing.
        """
        for name, value in (("messages", messages), ("tools", tools), ("answer", answer)):
            for place, text in _texts(value, name):
                if token := self.in_text(text):
                    return Found(place, token)
        return None

    def find_in_row(
        self, messages: Sequence[Message], answer: str, calls: Sequence[ToolCall], tools: Sequence[Any]
    ) -> Found | None:
        """The first control token in any text of a row, or None."""
        if not calls and not tools and all(_is_plain(turn) for turn in messages):  # true for most rows of most logs
            search = self.pattern.search
            for index, turn in enumerate(messages):
                if found := search(turn.content):
                    return Found(f"messages[{index}].content", found[0])
            found = search(answer)
            return Found("answer.content", found[0]) if found else None
        said = Message.model_construct(role="assistant", content=answer, tool_calls=list(calls))
        return self.find([turn.as_chat() for turn in messages], tools, said.as_chat())

    def harmless(self, value: Any) -> Any:
        """The value with x in place of every punctuation character of control tokens (`<`, `|`, …) in all its texts."""
        if isinstance(value, str):
            return value.translate(self._without_marks)
        if isinstance(value, Mapping):
            return {self.harmless(key): self.harmless(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.harmless(inner) for inner in value]
        return value


def _is_plain(turn: Message) -> bool:
    """Whether the turn has only a known role and text, so that nothing else of it gets into a prompt."""
    known = turn.role in ("system", "user", "assistant", "tool")
    return known and not turn.tool_calls and turn.name is None and turn.tool_call_id is None


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value of any depth, including keys, with its place."""
    waiting = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
            if "\\" in value and place.endswith(".arguments"):
                waiting.append((place, _decoded(value)))
        elif isinstance(value, Mapping):
            yield from ((f"{place}, a name in it,", key) for key in value if isinstance(key, str))
            waiting += [(f"{place}.{key}", inner) for key, inner in reversed(list(value.items()))]
        elif isinstance(value, list | tuple):
            waiting += [(f"{place}[{index}]", inner) for index, inner in reversed(list(enumerate(value)))]


def _decoded(text: str) -> Any:
    try:
        value = json.loads(text) if len(text) <= _MOST_NESTED_JSON else None
    except (ValueError, RecursionError):
        return None
    return None if isinstance(value, str) and value == text else value
