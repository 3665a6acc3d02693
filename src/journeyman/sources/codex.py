"""Codex CLI rollouts: ~/.codex/sessions/YYYY/MM/DD/rollout-TIME-ID.jsonl.

Source: openai/codex, codex-rs/protocol (RolloutItem, ResponseItem, EventMsg). A file is one row; each line is
{timestamp, type, payload}, and the payloads of `response_item` are items of the Responses API. Older files begin with
a line of id, timestamp and instructions, followed by bare items; the oldest are one object of `session` and `items`.

- Items of one response (reasoning, text, calls) are one answer; everything before it is its history.
- A compaction replaces the history; if it was encrypted on the server, later answers are rejected.
- Turns that were rolled back are removed from the history. Errors are failed calls.
- Tool definitions are not logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.codex_items import Answer, Unread, call_of, is_context, output_of, spoken
from journeyman.sources.fields import NotAnInteraction, between_ms, iso_time, mapping, named_role, text_or_none, without
from journeyman.sources.history import answered
from journeyman.sources.place import Place
from journeyman.sources.session_files import is_codex
from journeyman.sources.sessions import Line, Session

_ANSWER_ITEMS = ("reasoning", "function_call", "custom_tool_call", "local_shell_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_LEFT = note.BranchLeft().record()
_GAP = note.HistoryGap("a line of the session that was not understood").record()
_DAMAGED = "damaged line"
_NO_ITEMS = ("event_msg", "turn_context", "session_meta")
_BOOKKEEPING = ("ghost_snapshot", "other")


def claims(row: Mapping[str, Any]) -> bool:
    if isinstance(row, Session):
        return row.format == "codex"
    is_oldest = isinstance(row.get("items"), list) and "id" in mapping(row.get("session"))
    return is_oldest or is_codex(row) or _is_streamed(row)


def _is_streamed(row: Mapping[str, Any]) -> bool:
    """A line of `codex exec --json`."""
    type_ = row.get("type")
    names = ("thread.started", "turn.started", "turn.completed", "turn.failed")
    return isinstance(type_, str) and (
        type_ in names or (type_.startswith("item.") and isinstance(row.get("item"), dict))
    )


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    damaged: list[NotAnInteraction] = []
    if isinstance(row, Session):
        lines, damaged = row.lines, row.damaged
    elif isinstance(row.get("items"), list) and isinstance(row.get("session"), dict):
        number = int(place.source.rpartition(":")[2])
        lines = [Line(number, {"type": "session_meta", "payload": row["session"]})]
        lines += [Line(number, mapping(item)) for item in row["items"]]
    elif _is_streamed(row):
        raise NotAnInteraction(
            why.LineOfSession(
                "a line of `codex exec --json`, which lacks the prompt",
                "pass the rollout's file below ~/.codex/sessions",
            )
        )
    else:
        raise NotAnInteraction(
            why.LineOfSession("a single line of a Codex session", "pass the rollout's whole .jsonl file")
        )
    rollout = _Rollout(place)
    for line in sorted(
        [*lines, *(Line(one.line or 0, {_DAMAGED: one}) for one in damaged)], key=lambda one: one.number
    ):
        try:
            rollout.read(line)
        except NotAnInteraction as reason:
            rollout.lost(line, reason)
    rollout.flush()
    yield from rollout.made


class _Rollout:
    """The state of a session from line to line."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.made: list[Interaction | NotAnInteraction] = []
        self._begin({})

    def _begin(self, meta: Mapping[str, Any]) -> None:
        self._meta = meta
        self._history: list[Message] = []
        self._behind: list[tuple[int, int]] = []  # of each answer: number of turns before it, index in `made`
        self._answer: Answer | None = None
        self._model: str | None = None
        self._time: Any = None
        self._broken: why.HistoryBroken | None = None
        self._torn: why.HistoryBroken | None = None
        self._gap = False
        base = mapping(meta.get("base_instructions")).get("text") or meta.get("instructions")
        self._instructions = base if isinstance(base, str) else ""

    def read(self, line: Line) -> None:
        value = line.value
        type_, payload = value.get("type"), value.get("payload")
        if _DAMAGED in value:
            raise value[_DAMAGED]
        if "record_type" in value:
            return
        if not isinstance(payload, dict):
            if type_ is None and "id" in value:
                type_, payload = "session_meta", value
            elif isinstance(type_, str) and type_ not in ("session_meta", "event_msg", "turn_context", "compacted"):
                type_, payload = "response_item", value
            else:
                raise NotAnInteraction(why.FieldMissing("payload"))
        if type_ == "session_meta":
            self._session(payload)
        elif type_ == "turn_context":
            self.flush()
            self._model = text_or_none(payload.get("model")) or self._model
        elif type_ == "response_item":
            self._item(line, payload)
        elif type_ == "event_msg":
            self._event(line, payload)
        elif type_ == "compacted":
            self.flush()
            self._compact(payload)
        else:
            raise Unread(why.UnknownType("a line", plain(str(type_), 40)))

    def lost(self, line: Line, reason: NotAnInteraction) -> None:
        """Records an unreadable line: the answer that it is part of, or that answers it, is lost as well."""
        self.made.append(NotAnInteraction(reason.reason, line.number, reason.text))
        if isinstance(reason, Unread):  # not an item: a line of a newer version, whose effect is unknown
            self._gap = True
            return
        if line.value.get("type") in _NO_ITEMS or any(f'"{one}"' in (reason.text or "") for one in _NO_ITEMS):
            return
        if self._answer is not None and not self._answer.closed:
            self._torn = why.HistoryBroken("part_not_understood", f"line {line.number}")
        self.flush()
        self._torn = why.HistoryBroken("answered_not_understood", f"line {line.number}")

    def _session(self, meta: Mapping[str, Any]) -> None:
        """Reads session metadata; a fork's file begins with the lines of its parent session, including metadata."""
        self.flush()
        if not self._meta or (self._history and meta.get("id") != self._meta.get("id")):
            self._begin(meta)

    def _item(self, line: Line, item: Mapping[str, Any]) -> None:
        type_ = item.get("type", "message")
        if type_ == "message" and item.get("role") != "assistant":
            self.flush()
            self._history.append(spoken(item))
        elif type_ == "message" or type_ in _ANSWER_ITEMS:
            if self._answer is not None and self._answer.closed:
                self.flush()
            self._answer = self._answer or Answer()
            self._answer.add(line.number, line.value.get("timestamp"), item)
            return
        elif type_ in _OUTPUTS:
            self.flush()
            self._history.append(output_of(item))
        elif isinstance(type_, str) and type_.endswith("_call"):
            self._answer = self._answer or Answer()
            self._answer.on_server(line.number, line.value.get("timestamp"), plain(type_, 40))
            return
        elif type_ in ("compaction", "compaction_summary", "context_compaction"):
            self.flush()
            self._broken = why.HistoryBroken("encrypted")
        elif type_ not in _BOOKKEEPING:
            raise NotAnInteraction(why.UnknownType("an item", plain(str(type_), 40)))
        self._time = line.value.get("timestamp") or self._time

    def _event(self, line: Line, event: Mapping[str, Any]) -> None:
        """Reads an event. Most repeat the items for display; only these contain more."""
        match event.get("type"):
            case "token_count" if self._answer is not None and mapping(event.get("info")):
                self._answer.usage = mapping(mapping(event["info"]).get("last_token_usage"))
                self._answer.closed = True
            case "turn_aborted":
                if self._answer is not None:
                    self._answer.interrupted = True
                self.flush()
            case "thread_rolled_back":
                self.flush()
                self._roll_back(event.get("num_turns"))
            case "error":
                self.flush()
                self._made(None, line.number, plain(str(event.get("message") or "error"), 300))

    def flush(self) -> None:
        """Ends the current answer, if there is one."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        self._made(answer, answer.line, None)
        if answer.message.content or answer.message.tool_calls:
            self._history.append(answer.message)
        self._time = answer.time or self._time

    def _made(self, answer: Answer | None, line: int, error: str | None) -> None:
        message = None if answer is None else answer.message
        place = self._place.at(line)
        try:
            if broken := self._broken or self._torn:
                self._gap, self._torn = self._gap or self._torn is not None, None
                raise NotAnInteraction(broken)
            if message is not None and not (message.content or message.tool_calls):
                raise NotAnInteraction(why.OnlyThoughts())
            one = answered(
                [*self._system(), *self._history],
                message,
                place,
                id=place.source,
                role=self._role() or place.role,
                reasoning=None if answer is None else "\n".join(answer.thoughts) or None,
                succeeded=None if error is None else False,
                errors=[] if error is None else [error],
                notes=[*([] if answer is None else answer.notes()), *([_GAP] if self._gap else [])],
                provider=text_or_none(self._meta.get("model_provider")) or "openai",
                model=self._model,
                duration_ms=None if answer is None else between_ms(self._time, answer.time),
                timestamp=iso_time(self._time),
                session=text_or_none(self._meta.get("id")) or place.name,
                extra=self._extra(answer),
            )
            self._behind.append((len(self._history), len(self.made)))
            self.made.append(one)
        except NotAnInteraction as reason:
            self.made.append(NotAnInteraction(reason.reason, line))

    def _extra(self, answer: Answer | None) -> dict[str, Any]:
        names = ("cwd", "cli_version", "originator", "source", "git")
        meta = {name: self._meta[name] for name in names if self._meta.get(name)}
        return meta | ({"usage": answer.usage} if answer is not None and answer.usage else {})

    def _system(self) -> list[Message]:
        """The session's instructions, unless the history repeats them, as in files of older versions."""
        text = self._instructions
        if not text or any(text in one.content for one in self._history if one.role != "assistant"):
            return []
        return [Message(role="system", content=text)]

    def _role(self) -> str | None:
        """A sub-agent's role: {"subagent": "review"} or {"subagent": {"thread_spawn": {"agent_role": …}}}."""
        kind = mapping(self._meta.get("source")).get("subagent")
        if isinstance(kind, str) and kind:
            return kind
        spawned = mapping(mapping(kind).get("thread_spawn"))
        named = text_or_none(spawned.get("agent_role")) or text_or_none(self._meta.get("agent_role"))
        return named or ("subagent" if kind else named_role(without(self._meta, "role")))

    def _compact(self, payload: Mapping[str, Any]) -> None:
        replacement = payload.get("replacement_history")
        self._broken, self._behind, self._gap = None, [], False
        if isinstance(replacement, list):
            self._history = []
            for item in replacement:
                self._replace(mapping(item))
            return
        summary = text_or_none(payload.get("message"))
        if summary is None:
            self._broken = why.HistoryBroken("no_summary")
            return
        asked = [one for one in self._history if one.role in ("system", "user")]
        self._history = [*asked, Message(role="user", content=summary)]

    def _replace(self, item: Mapping[str, Any]) -> None:
        type_ = item.get("type", "message")
        if type_ == "message":
            self._history.append(spoken(item))
        elif type_ in _OUTPUTS:
            self._history.append(output_of(item))
        elif type_ in _ANSWER_ITEMS and type_ != "reasoning":
            self._history.append(Message(role="assistant", content="", tool_calls=[call_of(item)]))
        elif type_ not in ("reasoning", *_BOOKKEEPING):
            self._broken = why.HistoryBroken("encrypted")

    def _roll_back(self, turns: Any) -> None:
        count = turns if isinstance(turns, int) else 0
        while count > 0 and self._history:
            gone = self._history.pop()
            count -= gone.role == "user" and not is_context(gone.content)
        for depth, index in self._behind:
            one = self.made[index]
            if depth > len(self._history) and isinstance(one, Interaction) and _LEFT not in one.notes:
                self.made[index] = one.model_copy(update={"notes": [*one.notes, _LEFT]})
        self._behind = [one for one in self._behind if one[0] <= len(self._history)]
