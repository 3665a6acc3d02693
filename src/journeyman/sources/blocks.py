"""Content blocks of Anthropic's Messages and OpenAI's Responses APIs; anything but text is left out and listed.

One screenshot in a long session must not cost every later answer: its place is marked, and `history.answered` rejects
only direct answers to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Message, ToolCall
from journeyman.sources.fields import NotAnInteraction, decoded, kind, mapping, text_or_none
from journeyman.sources.history import LEFT_OUT

_TEXTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal")


@dataclass
class Blocks:
    """The contents of a content field."""

    texts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def extra(self) -> dict[str, Any]:
        """The `extra` of the message that is built from it."""
        return {LEFT_OUT: self.left_out} if self.left_out else {}


def blocks_of(content: Any, place: str) -> Blocks:
    """Reads a content field, which is text, nothing, or a list of blocks.

    Raises:
        NotAnInteraction: it is something else, or a call has no name.
    """
    found = Blocks()
    if content is None or isinstance(content, str):
        found.texts += [content] if content else []
        return found
    if not isinstance(content, list):
        raise NotAnInteraction(why.WrongType(place, kind(content), "text or a list"))
    for index, one in enumerate(content):
        _add(found, one, f"{place}[{index}]")
    return found


def _add(found: Blocks, one: Any, place: str) -> None:
    if isinstance(one, str):
        found.texts.append(one)
        return
    block = mapping(one)
    type_ = block.get("type", "text")
    if type_ == "tool_use":
        found.calls.append(_call(block, place))
    elif type_ == "tool_result":
        found.results.append(_result(block, place))
    elif type_ in ("thinking", "redacted_thinking", "reasoning"):
        thought = text_or_none(block.get("thinking")) or text_or_none(block.get("reasoning"))
        found.thoughts += [thought] if thought else []
    elif isinstance(text := block.get("refusal" if type_ == "refusal" else "text"), str) and type_ in _TEXTS:
        found.texts.append(text)
    else:
        name = plain(str(type_), 40)
        found.texts.append(f"[{name}]")
        found.left_out.append(name)


def _call(block: dict[str, Any], place: str) -> ToolCall:
    name = block.get("name")
    if not isinstance(name, str) or not name:
        raise NotAnInteraction(why.FieldMissing("name", place))
    input_ = decoded(block.get("input"))
    return ToolCall(name=name, arguments={} if input_ in (None, "") else input_, id=text_or_none(block.get("id")))


def _result(block: dict[str, Any], place: str) -> Message:
    inner = blocks_of(block.get("content"), f"{place}.content")
    flags = {"is_error": True} if block.get("is_error") else {}
    return Message(
        role="tool",
        content="\n".join(inner.texts),
        tool_call_id=text_or_none(block.get("tool_use_id")),
        extra={**flags, **inner.extra},
    )
