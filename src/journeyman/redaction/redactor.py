"""START HERE. Replaces secrets and personal data by typed placeholders, in the same way for ingest and serving.

Within a conversation a value always gets the same placeholder: the first email address is <EMAIL_1>, the second
<EMAIL_2>. Numbering restarts in each conversation, so a placeholder says nothing about the value, and the model learns
to carry placeholders from the question into the answer. When serving, the values are restored in the answer before the
client sees it.

System prompts have numbers of their own: an address that stands in no other turn is <SYSTEM_EMAIL_1>. So a prompt that
all rows have is the same text in all of them, whatever else their turns contain, and the turns are the same whichever
prompt is before them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from journeyman.records import Interaction, Message, ToolCall
from journeyman.redaction.personal import find_personal
from journeyman.redaction.secrets import Span, find_secrets

_PLACEHOLDER = re.compile(r"<[A-Z]+(?:_[A-Z]+)*_\d+>")
_BEGUN = re.compile(r"<(?:[A-Z]+(?:_[A-Z]+)*(?:_\d*)?)?")
_LONGEST_PLACEHOLDER = 32
_TIME = re.compile(r"[\dT:.+Z -]{8,40}")

_SHORT, _MOST_FREE = 80, 20_000
_FREE: set[tuple[bool, bool, str]] = set()
"""Short texts in which nothing was found. Tools consist of them, and agents send the same tools with every request."""


@dataclass(frozen=True)
class Redactor:
    """What to replace.

    Attributes:
        system_apart: whether system prompts have numbers of their own. Bundles of older versions were trained without.
    """

    secrets: bool = True
    personal: bool = True
    system_apart: bool = True

    def find(self, text: str) -> list[Span]:
        """Spans in order, without overlaps: secrets take precedence over personal data, then longer spans."""
        short = len(text) <= _SHORT
        if short and (self.secrets, self.personal, text) in _FREE:
            return []
        secrets = sorted(find_secrets(text), key=_longest_first) if self.secrets else []
        personal = sorted(find_personal(text), key=_longest_first) if self.personal else []
        if not secrets and not personal:
            if short:
                if len(_FREE) >= _MOST_FREE:
                    _FREE.clear()
                _FREE.add((self.secrets, self.personal, text))
            return []
        chosen, taken = [], bytearray(len(text))
        for start, end, kind in [*secrets, *personal]:
            # The ends are checked first: an earlier span is longer or this one is short, so little is left to search.
            if end > start and not taken[start] and not taken[end - 1] and taken.find(1, start, end) < 0:
                taken[start:end] = b"\1" * (end - start)
                chosen.append(Span(start, end, kind))
        return sorted(chosen)

    def conversation(self) -> Conversation:
        return Conversation(self)

    def interaction(self, row: Interaction) -> Interaction:
        """The interaction with every value replaced, in all fields."""
        if not self.secrets and not self.personal:
            return row
        if not self.find(_everything(row)):
            return row
        seen = self.conversation()
        for message in row.messages:
            seen.reserve(message.content)
        # What serving knows comes first, in its order (serving/redacting.py); the system's turns after those that may
        # share their values.
        turns = {i: seen.message(m) for i, m in enumerate(row.messages) if m.role != "system"}
        changes: dict[str, Any] = {
            "messages": [turns.get(i) or seen.message(m) for i, m in enumerate(row.messages)],
            "tools": seen.value(row.tools),
            "output": None if row.output is None else seen.text(row.output),
            "output_calls": [seen.call(call) for call in row.output_calls],
            "reasoning": None if row.reasoning is None else seen.text(row.reasoning),
        }
        changes |= {name: seen.value(getattr(row, name)) for name in ("errors", "check", "extra")}
        changes |= {name: self.pseudonym(getattr(row, name)) for name in ("id", "log_id", "session")}
        changes["notes"] = [note.model_copy(update={"details": seen.value(note.details)}) for note in row.notes]
        for name in ("role", "provider", "model", "timestamp", "finish_reason"):
            value = getattr(row, name)
            changes[name] = None if value is None else seen.text(value)
        return row.model_copy(update={**changes, "redacted": dict(seen.counts)})

    def pseudonym(self, name: str | None) -> str | None:
        """Hashes an id that is itself personal (an email address as session), so that rows can still be joined."""
        if name is None or not self.find(name):
            return name
        return "id-" + hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=12).hexdigest()


class Conversation:
    """The placeholders of one conversation, numbered in order of appearance."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._placeholders: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._reserved: set[str] = set()
        self._in_system: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def text(self, text: str, *, system: bool = False) -> str:
        """The text with placeholders.

        Args:
            system: it is a system prompt.
        """
        parts, end = [], 0
        apart = system and self._redactor.system_apart
        for span in self._redactor.find(text):
            parts += [text[end : span.start], self._placeholder(text[span.start : span.end], span.kind, apart)]
            end = span.end
            self.counts[span.kind] += 1
        return "".join([*parts, text[end:]]) if parts else text

    def value(self, value: Any) -> Any:
        """A JSON value with the text in it replaced, including keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        if isinstance(value, dict):
            return {self.text(key) if isinstance(key, str) else key: self.value(v) for key, v in value.items()}
        return value

    def call(self, call: ToolCall) -> ToolCall:
        return ToolCall(arguments=self.value(call.arguments), name=self.text(call.name), id=self._optional(call.id))

    def message(self, message: Message) -> Message:
        return Message(
            content=self.text(message.content, system=message.role == "system"),
            tool_calls=[self.call(call) for call in message.tool_calls],
            name=self._optional(message.name),
            tool_call_id=self._optional(message.tool_call_id),
            role=self.text(message.role),
            extra=self.value(message.extra),
        )

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def reserve(self, text: str) -> None:
        """Reserves placeholders that a text already contains: none of them is used for a value."""
        if "<" in text:
            self._reserved.update(_PLACEHOLDER.findall(text))

    def know(self, other: Conversation) -> None:
        """Adds the values of another conversation, whose placeholders are used for none of this one's."""
        for name, value in other._values.items():
            self._reserved.add(name)
            self._values.setdefault(name, value)
            self._placeholders.setdefault(value, name)
        self.counts.update(other.counts)

    def restore(self, text: str, *, in_json: bool = False) -> str:
        """The text with this conversation's placeholders replaced by their values; others are left as they are.

        Args:
            in_json: the text is JSON and the values are inserted into its strings, so quotes and line ends are escaped.
        """
        if "<" not in text or not self._values:
            return text
        return _PLACEHOLDER.sub(lambda found: self._value_of(found[0], in_json), text)

    def _value_of(self, placeholder: str, in_json: bool) -> str:
        value = self._values.get(placeholder, placeholder)
        return json.dumps(value, ensure_ascii=False)[1:-1] if in_json else value

    def _placeholder(self, value: str, kind: str, apart: bool) -> str:
        if value not in self._placeholders:
            name = self._free(f"system_{kind}" if apart else kind)
            self._placeholders[value], self._values[name] = name, value
        elif apart and value not in self._in_system:
            self._free(f"system_{kind}")  # what the value would be called if no other turn contained it
        if apart:
            self._in_system.add(value)
        return self._placeholders[value]

    def _free(self, kind: str) -> str:
        name = self._next(kind)
        while name in self._reserved:
            name = self._next(kind)
        return name

    def _next(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"<{kind.upper()}_{self._numbers[kind]}>"


class StreamRestorer:
    """Restores a streamed answer, in which a placeholder may be split across pieces.

    The returned pieces, including that of `finish`, add up to what `Conversation.restore` returns for the whole text.
    """

    def __init__(self, conversation: Conversation, *, in_json: bool = False) -> None:
        self._conversation = conversation
        self._in_json = in_json
        self._held = ""

    def feed(self, piece: str) -> str:
        """Returns what can be sent now; the start of a placeholder is held back."""
        text = self._held + piece
        cut = text.rfind("<", max(0, len(text) - _LONGEST_PLACEHOLDER))
        if cut >= 0 and _BEGUN.fullmatch(text, cut):
            self._held, text = text[cut:], text[:cut]
        else:
            self._held = ""
        return self._conversation.restore(text, in_json=self._in_json)

    def finish(self) -> str:
        """Returns what is still held back."""
        held, self._held = self._held, ""
        return held


def _longest_first(span: Span) -> tuple[int, Span]:
    return span.start - span.end, span


def _everything(row: Interaction) -> str:
    """All text of the row in one string: most rows contain nothing to replace, which a single search shows."""
    texts = [*(message.content for message in row.messages), row.output or "", row.reasoning or ""]
    skipped: Any = {"messages": {"__all__": {"content"}}, "output": True, "reasoning": True, "source": True}
    if row.timestamp is None or _TIME.fullmatch(row.timestamp):
        skipped["timestamp"] = True
    # Escaped line ends and quotes would hide the start of a word.
    encoded = row.model_dump_json(exclude=skipped, exclude_defaults=True)
    return "\n".join([*texts, encoded.replace("\\n", "\n").replace('\\"', '"')])
