"""The lines of a Claude Code session as a tree, which gives the history of each model call.

Every line names the one before it (`parentUuid`). Going back to an earlier prompt starts a branch; a compaction starts
a new root, and its summary is the history from there on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Message, Note
from journeyman.sources.blocks import blocks_of
from journeyman.sources.claude_lines import Call, Entry, Past, Task, content_of, user_turns_joined
from journeyman.sources.fields import NotAnInteraction, mapping, text_or_none
from journeyman.sources.history import characters, cut_results, too_long
from journeyman.sources.place import Place
from journeyman.sources.sessions import Line

_TASK_TOOLS = ("Task", "Agent")


class Tree:
    """The tree of a session, built once.

    Args:
        damaged: numbers of the lines that are not JSON objects.
        place: has the limit for tool results.
    """

    def __init__(self, lines: Sequence[Line], damaged: AbstractSet[int], place: Place) -> None:
        self._damaged = set(damaged)
        self._place = place
        self.unreadable: list[NotAnInteraction] = []
        self._by_uuid: dict[str, Entry] = {}
        self._skips: dict[str, str] = {}
        self._call_of: dict[str, Call] = {}
        self._results: dict[str, list[Entry]] = defaultdict(list)
        self._prompts: dict[str, list[Entry]] = defaultdict(list)
        self._children: dict[str, list[Entry]] = defaultdict(list)
        for line in lines:
            self._add(line)
        self._name_agents()
        self._read()
        self.calls = sorted({id(one): one for one in self._call_of.values()}.values(), key=lambda call: call.line)
        self.tasks = self._tasks()
        settings = (text_or_none(line.value.get("agentSetting")) for line in lines)
        self.agent_setting = next((one for one in settings if one), None)

    def _add(self, line: Line) -> None:
        value = line.value
        uuid, type_ = text_or_none(value.get("uuid")), value.get("type")
        if uuid is None:
            if type_ in ("user", "assistant"):
                self.unreadable.append(
                    NotAnInteraction(why.FieldMissing("uuid", f"a line of type {type_!r}"), line.number)
                )
                self._damaged.add(line.number)
        elif uuid not in self._by_uuid:  # the file of a resumed session repeats lines
            self._by_uuid[uuid] = Entry(line.number, value, uuid, text_or_none(value.get("parentUuid")))

    def _name_agents(self) -> None:
        """Identifies a sub-agent by its id, or, in older versions, which have none, by the root of its lines."""
        for entry in self._by_uuid.values():
            if not entry.value.get("isSidechain"):
                continue
            named = text_or_none(entry.value.get("agentId"))
            parent = self._by_uuid.get(entry.parent or "")
            entry.agent = named or (parent.agent if parent is not None and parent.agent else entry.uuid[:8])

    def _read(self) -> None:
        for entry in list(self._by_uuid.values()):
            try:
                self._read_one(entry)
            except NotAnInteraction as reason:
                self.unreadable.append(NotAnInteraction(reason.reason, entry.line))
                self._damaged.add(entry.line)
                del self._by_uuid[entry.uuid]
        for entry in self._by_uuid.values():
            entry.messages = cut_results(entry.messages, self._place.cut_tool_results)
            for message in entry.messages:
                if message.tool_call_id:
                    self._results[message.tool_call_id].append(entry)
            if entry.parent is not None:
                self._children[entry.parent].append(entry)
                if entry.prompts:
                    self._prompts[self._place_of(entry.parent)].append(entry)

    def _place_of(self, uuid: str) -> str:
        """The place of a line in the tree; all lines of one call are one place."""
        call = self._call_of.get(uuid)
        return uuid if call is None else call.key

    def _read_one(self, entry: Entry) -> None:
        value = entry.value
        match value.get("type"):
            case "user":
                blocks = blocks_of(content_of(value), "message.content")
                text = "\n".join(blocks.texts)
                own = [Message(role="user", content=text, extra=blocks.extra)] if text else []
                entry.messages = [*blocks.results, *own]
            case "assistant":
                self._add_to_call(entry)
            case "attachment":
                self._read_attachment(entry)
            case "system" if value.get("subtype") == "microcompact_boundary":
                entry.note = note.HistoryGap("some older results of tools, which Claude Code cleared").record()

    def _add_to_call(self, entry: Entry) -> None:
        content = content_of(entry.value)
        blocks = blocks_of(content, "message.content")
        id_ = text_or_none(mapping(entry.value.get("message")).get("id"))
        key = f"{entry.agent}/{id_}" if id_ else entry.uuid
        call = self._call_of.get(key) or Call(key, [])
        known = {one.id for one in call.blocks.calls if one.id}
        call.entries.append(entry)
        call.blocks.texts += [text for text in blocks.texts if text not in call.blocks.texts]
        call.blocks.calls += [one for one in blocks.calls if one.id not in known]
        call.blocks.thoughts += [text for text in blocks.thoughts if text not in call.blocks.thoughts]
        call.blocks.left_out += blocks.left_out
        self._call_of[key] = self._call_of[entry.uuid] = call

    def _read_attachment(self, entry: Entry) -> None:
        """Reads a prompt that was queued while the model worked; the content of other attachments is not logged."""
        attached = mapping(entry.value.get("attachment"))
        if attached.get("type") == "queued_command":
            blocks = blocks_of(attached.get("prompt"), "attachment.prompt")
            entry.messages = [Message(role="user", content="\n".join(blocks.texts), extra=blocks.extra)]
        else:
            shown = plain(str(attached.get("type")), 40)
            entry.note = note.TurnsNotKept(f"an attachment of type {shown!r}").record()

    def history(self, call: Call) -> Past:
        """What the model saw before this call.

        Raises:
            NotAnInteraction: it is incomplete or too long.
        """
        turns, size = list[Call | Entry](), 0
        seen = {call.key}
        at: Call | Entry = call
        while (step := self._before(at, size == 0)) is not None:
            at = step
            key = at.key if isinstance(at, Call) else at.uuid
            if key in seen:
                raise NotAnInteraction(why.HistoryBroken("circle"))
            seen.add(key)
            turns.append(at)
            size += sum(map(characters, at.messages))
            if size > self._place.max_history:
                raise too_long(self._place)
        notes = [one for turn in turns for one in self._notes(turn)]
        turns.reverse()
        time = next((one.value.get("timestamp") for one in reversed(turns) if isinstance(one, Entry)), None)
        return Past(self._flat(turns, call.entries[0].line), _once(notes), time)

    def _notes(self, at: Call | Entry) -> list[Note]:
        notes = [] if at.note is None else [at.note]
        if isinstance(at, Entry) and at.prompts and at.parent is not None:
            siblings = self._prompts[self._place_of(at.parent)]
            if any(other.line > at.line for other in siblings):
                notes.append(note.BranchLeft().record())
        return notes

    def _before(self, at: Call | Entry, is_answer: bool) -> Call | Entry | None:
        if at.parent is None:
            return None
        found = self._by_uuid.get(at.parent)
        if found is None:
            found = self._over_damage(at)
            if is_answer:
                raise NotAnInteraction(why.HistoryBroken("damaged_line"))
            at.note = note.HistoryGap("a turn on a damaged line").record()
        found = self._over_bookkeeping(found)
        return self._call_of.get(found.uuid, found)

    def _over_bookkeeping(self, entry: Entry) -> Entry:
        """The nearest ancestor with content; thousands of lines without any can come before it."""
        passed: list[str] = []
        while entry.uuid not in self._call_of and not entry.messages and entry.note is None:
            above = self._by_uuid.get(self._skips.get(entry.uuid) or entry.parent or "")
            if above is None or above.uuid in passed[-1:] or len(passed) > len(self._by_uuid):
                break
            passed.append(entry.uuid)
            entry = above
        self._skips |= dict.fromkeys(passed, entry.uuid)
        return entry

    def _over_damage(self, at: Call | Entry) -> Entry:
        """The line before the damaged ones, if a parent is missing."""
        first = at.entries[0] if isinstance(at, Call) else at
        before = [one for one in self._by_uuid.values() if one.agent == first.agent and one.line < first.line]
        last = max(before, key=lambda one: one.line, default=None)
        if last is None or not any(last.line < number < first.line for number in self._damaged):
            raise NotAnInteraction(why.HistoryBroken("parent_missing", f"line {first.line}"))
        return last

    def _flat(self, turns: Sequence[Call | Entry], before: int) -> list[Message]:
        """The turns as messages: results of parallel calls are put back, consecutive user turns are merged."""
        there = {one.uuid for one in turns if isinstance(one, Entry)}
        messages: list[Message] = []
        for turn in turns:
            messages += turn.messages
            if not isinstance(turn, Call) or not turn.messages:
                continue
            ids = [one.id for one in turn.blocks.calls if one.id]
            beside = {entry.uuid: entry for id_ in ids for entry in self._results[id_]}
            for entry in sorted(beside.values(), key=lambda one: one.line):
                if entry.uuid not in there and entry.line < before and entry.agent == turn.agent:
                    messages += entry.messages
        return user_turns_joined(messages)

    def results_of(self, call: Call) -> list[Message]:
        """The results of the call's tools."""
        ids = {one.id for one in call.blocks.calls if one.id}
        return [
            message
            for id_ in ids
            for entry in self._results[id_]
            for message in entry.messages
            if message.tool_call_id == id_
        ]

    def texts_after(self, call: Call) -> list[str]:
        """What the user wrote directly after the call."""
        after = [child for entry in call.entries for child in self._children[entry.uuid]]
        return [message.content for child in after for message in child.messages if message.role == "user"]

    def first_text(self, agent: str) -> str | None:
        """The first prompt of a sub-agent."""
        texts = (m.content for one in self._by_uuid.values() if one.agent == agent for m in one.messages)
        return next(texts, None)

    def _tasks(self) -> list[Task]:
        started: list[Task] = []
        for call in self.calls:
            for one in call.blocks.calls:
                arguments = mapping(one.arguments)
                type_ = text_or_none(arguments.get("subagent_type"))
                if one.name in _TASK_TOOLS and type_:
                    prompt = str(arguments.get("prompt") or "")
                    started.append(Task(prompt, type_, self._agent_of(one.id)))
        return started

    def _agent_of(self, id_: str | None) -> str | None:
        results = (mapping(entry.value.get("toolUseResult")) for entry in self._results.get(id_ or "", ()))
        return next((agent for one in results if (agent := text_or_none(one.get("agentId")))), None)


def _once(notes: Sequence[Note]) -> list[Note]:
    return list({(one.code, *one.details.items()): one for one in notes}.values())
