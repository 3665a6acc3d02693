"""Lines of a Claude Code session, and the calls that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from journeyman.reasons import sources as why
from journeyman.records import Message, Note
from journeyman.sources.blocks import Blocks
from journeyman.sources.fields import NotAnInteraction, kind, mapping
from journeyman.sources.history import LEFT_OUT

_ERRORS = ("API Error", "Claude AI usage limit", "Credit balance", "Prompt is too long", "Request timed out")
"""Texts that Claude Code writes in place of the model's; older versions do not flag them."""


@dataclass
class Entry:
    """A line that has a place in the tree."""

    line: int
    value: dict[str, Any]
    uuid: str
    parent: str | None
    agent: str = ""
    messages: list[Message] = field(default_factory=list)
    note: Note | None = None

    @property
    def prompts(self) -> bool:
        """Whether the user typed it."""
        typed = any(one.role == "user" for one in self.messages) and not self.value.get("isMeta")
        return typed and all(one.role == "user" for one in self.messages)


@dataclass
class Call:
    """An answer of the API: all lines with the same message id. Its message is built once all of them are added."""

    key: str
    entries: list[Entry]
    blocks: Blocks = field(default_factory=Blocks)
    note: Note | None = None

    @property
    def first(self) -> dict[str, Any]:
        return self.entries[0].value

    @property
    def last(self) -> dict[str, Any]:
        return self.entries[-1].value

    @property
    def line(self) -> int:
        return self.entries[-1].line

    @property
    def agent(self) -> str:
        return self.entries[0].agent

    @property
    def parent(self) -> str | None:
        return self.entries[0].parent

    @property
    def is_api_error(self) -> bool:
        if any(one.value.get("isApiErrorMessage") is True for one in self.entries):
            return True
        is_own = mapping(self.last.get("message")).get("model") == "<synthetic>"
        return is_own and "".join(self.blocks.texts).startswith(_ERRORS)

    @property
    def stop_reason(self) -> Any:
        reasons = [mapping(one.value.get("message")).get("stop_reason") for one in self.entries]
        return next((one for one in reversed(reasons) if one is not None), None)

    @cached_property
    def message(self) -> Message:
        text = "".join(self.blocks.texts)
        return Message(role="assistant", content=text, tool_calls=self.blocks.calls, extra=self.blocks.extra)

    @cached_property
    def messages(self) -> list[Message]:
        """The answer in later requests: Claude Code sends neither API errors nor answers that are only thoughts."""
        message = self.message
        return [message] if not self.is_api_error and (message.content or message.tool_calls) else []


class Past(NamedTuple):
    """The history of a call; `time` is that of its last line."""

    messages: list[Message]
    notes: list[Note]
    time: Any


class Task(NamedTuple):
    """A tool call that starts a sub-agent."""

    prompt: str
    type: str
    agent: str | None


def content_of(value: dict[str, Any]) -> Any:
    message = value.get("message")
    if not isinstance(message, dict):
        raise NotAnInteraction(why.WrongType("message", kind(message), "an object"))
    return message.get("content")


def user_turns_joined(messages: Sequence[Message]) -> list[Message]:
    """Merges consecutive user turns, as Claude Code does."""
    merged: list[Message] = []
    for one in messages:
        if merged and one.role == "user" and merged[-1].role == "user":
            parts = [*merged[-1].extra.get(LEFT_OUT, ()), *one.extra.get(LEFT_OUT, ())]
            content = f"{merged[-1].content}\n{one.content}"
            one = Message(role="user", content=content, extra={LEFT_OUT: parts} if parts else {})
            merged.pop()
        merged.append(one)
    return merged
