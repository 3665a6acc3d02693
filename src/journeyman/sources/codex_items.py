"""Items of the Responses API as Codex writes them: messages, calls and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Message, Note, ToolCall
from journeyman.sources.blocks import blocks_of
from journeyman.sources.fields import NotAnInteraction, decoded, mapping, text_or_none, without

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_CONTEXT = (
    "<environment_context>", "<user_instructions>", "# AGENTS.md", "<turn_aborted>", "<skill", "<user_shell_command>",
    "<subagent_notification>", "<permissions", "<collaboration_mode>",
)  # fmt: skip


_NO_TOOLS = note.ToolsNotKept("Codex does not log them").record()


class Unread(NotAnInteraction):
    """A line of an unknown type."""


def is_context(text: str) -> bool:
    """Whether a user turn was written by Codex, to describe the environment to the model."""
    return text.lstrip().startswith(_CONTEXT)


def spoken(item: Mapping[str, Any]) -> Message:
    """Converts a message item."""
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise NotAnInteraction(why.UnknownRole("message.role"))
    blocks = blocks_of(item.get("content"), "content")
    return Message(role=_ROLES[role], content="".join(blocks.texts), extra=blocks.extra)


def call_of(item: Mapping[str, Any]) -> ToolCall:
    """Converts a call of a function, of a tool that takes plain text, or of the shell."""
    id_ = text_or_none(item.get("call_id")) or text_or_none(item.get("id"))
    if item.get("type") == "local_shell_call":
        return ToolCall(name="local_shell", arguments=without(mapping(item.get("action")), "type"), id=id_)
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise NotAnInteraction(why.FieldMissing("name", "a call"))
    if item.get("type") == "custom_tool_call":
        return ToolCall(name=name, arguments={"input": str(item.get("input") or "")}, id=id_)
    arguments = decoded(item.get("arguments"))
    return ToolCall(name=name, arguments={} if arguments in (None, "") else arguments, id=id_)


def output_of(item: Mapping[str, Any]) -> Message:
    """Converts the output of a call; older files wrap it in an object."""
    output = item.get("output")
    if isinstance(output, Mapping):
        output = output.get("content", output.get("output"))
    blocks = blocks_of(output, "output")
    call_id = text_or_none(item.get("call_id"))
    return Message(role="tool", content="\n".join(blocks.texts), tool_call_id=call_id, extra=blocks.extra)


@dataclass
class Answer:
    """The items of one response."""

    line: int = 0
    time: Any = None
    texts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    server: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    closed: bool = False
    interrupted: bool = False

    def add(self, line: int, time: Any, item: Mapping[str, Any]) -> None:
        self.line, self.time = line, time
        match item.get("type", "message"):
            case "message":
                message = spoken(item)
                self.texts += [message.content] if message.content else []
                self.server += message.extra.get("left_out", [])
            case "reasoning":
                thoughts = (
                    blocks_of(item.get("content"), "content").texts or blocks_of(item.get("summary"), "summary").texts
                )
                self.thoughts += thoughts
            case _:
                self.calls.append(call_of(item))

    def on_server(self, line: int, time: Any, type_: str) -> None:
        """Adds a tool that ran on OpenAI's servers: its output is not in the file."""
        self.line, self.time = line, time
        self.server.append(type_)

    @property
    def message(self) -> Message:
        return Message(role="assistant", content="\n\n".join(self.texts), tool_calls=self.calls)

    def notes(self) -> list[Note]:
        notes = [_NO_TOOLS]
        notes += [note.PartsNotKept(repr(one)).record() for one in dict.fromkeys(self.server)]
        if self.interrupted:
            notes.append(note.TurnInterrupted().record())
        return notes
