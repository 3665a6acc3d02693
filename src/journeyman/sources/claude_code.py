"""Claude Code sessions: ~/.claude/projects/PROJECT/SESSION.jsonl, and sub-agents' agent-ID.jsonl.

Anthropic documents where the files are (code.claude.com, "Claude directory"), but not their lines; the format is as
described by public readers: claude-code-log (its models), simonw/claude-code-transcripts. A file is one row.

- Lines of one API message (same `message.id`) are one answer. Its history follows `parentUuid`, so abandoned branches
  are not mixed into others; results of parallel calls, whose lines branch too, are put back.
- Sub-agents are separate sessions, with the type of the agent as role ("sidechain" if it is not named).
- After a compaction the history is its summary, as the model saw it. System prompt and tools are not logged.
- API errors are failed calls, and left out of histories, as Claude Code leaves them out of its requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.claude_lines import Call
from journeyman.sources.claude_tree import Tree
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    finish_reason,
    iso_time,
    mapping,
    text_or_none,
)
from journeyman.sources.history import answered
from journeyman.sources.place import Place
from journeyman.sources.session_files import is_claude
from journeyman.sources.sessions import Session
from journeyman.sources.status import Status

_NOT_LOGGED = note.ToolsNotKept("Claude Code logs neither its system prompt nor its tools").record()
_BOOKKEEPING = {
    "agent-color", "agent-name", "agent-setting", "ai-title", "attribution-snapshot", "content-replacement",
    "custom-title", "file-history-snapshot", "last-prompt", "mode", "permission-mode", "pr-link", "progress",
    "queue-operation", "speculation-accept", "summary", "system", "tag", "task-summary", "worktree-state",
}  # fmt: skip
"""Types of lines that the model neither saw nor wrote."""
_INTERRUPTED = "[Request interrupted by user"
_REJECTED = "The user doesn't want to proceed with this tool use"
_SIDECHAIN = "sidechain"


def claims(row: Mapping[str, Any]) -> bool:
    if isinstance(row, Session):
        return row.format == "claude_code"
    is_beside = isinstance(row.get("agentType"), str) and len(row) <= 3
    return is_claude(row) or is_beside or _is_streamed(row)


def _is_streamed(row: Mapping[str, Any]) -> bool:
    """A line of `claude -p --output-format stream-json`."""
    named = isinstance(row.get("session_id"), str) and isinstance(row.get("type"), str)
    return (
        named
        and (row["type"] == "result" or "parent_tool_use_id" in row)
        and {"subtype", "message"} & row.keys() != set()
    )


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    if not isinstance(row, Session):
        if "agentType" in row and "type" not in row:
            raise NotAnInteraction(
                why.LineOfSession("metadata of a Claude Code sub-agent", "its session is in the .jsonl file next to it")
            )
        if _is_streamed(row):
            raise NotAnInteraction(
                why.LineOfSession(
                    "a line of Claude Code's stream-json output, which lacks the prompt",
                    "pass the session's file below ~/.claude/projects",
                )
            )
        raise NotAnInteraction(
            why.LineOfSession("a single line of a Claude Code session", "pass the session's whole .jsonl file")
        )
    yield from row.damaged
    for line in row.lines:
        type_ = line.value.get("type")
        if type_ not in ("user", "assistant", "attachment") and not (isinstance(type_, str) and type_ in _BOOKKEEPING):
            yield NotAnInteraction(why.UnknownType("a line", plain(str(type_), 40)), line.number)
    tree = Tree(row.lines, {one.line for one in row.damaged if one.line is not None}, place)
    yield from tree.unreadable
    roles = _roles(row, tree)
    for call in tree.calls:
        try:
            yield _interaction(call, tree, roles, place)
        except NotAnInteraction as reason:
            yield NotAnInteraction(reason.reason, call.line)


def _interaction(call: Call, tree: Tree, roles: Mapping[str, str], place: Place) -> Interaction:
    message = mapping(call.last.get("message"))
    answer: Message | None = call.message
    status = _status(call, tree)
    if status.succeeded is False and call.is_api_error:
        answer = None
    elif message.get("model") == "<synthetic>":
        raise NotAnInteraction(why.NotByAModel("Claude Code"))
    elif not call.messages:
        raise NotAnInteraction(why.OnlyThoughts())
    past = tree.history(call)
    return answered(
        past.messages,
        answer,
        place.at(call.line),
        id=text_or_none(message.get("id")) or call.key,
        role=roles.get(call.agent) or place.role,
        reasoning="\n".join(call.blocks.thoughts) or None,
        succeeded=status.succeeded,
        errors=status.errors,
        notes=[_NOT_LOGGED, *past.notes],
        provider="anthropic",
        model=text_or_none(message.get("model")) if not call.is_api_error else None,
        duration_ms=between_ms(past.time, call.last.get("timestamp")),
        finish_reason=None if call.is_api_error else finish_reason(call.stop_reason),
        timestamp=iso_time(past.time) or iso_time(call.first.get("timestamp")),
        session=_session(call, place),
        extra=_extra(call),
    )


def _extra(call: Call) -> dict[str, Any]:
    names = ("cwd", "gitBranch", "version", "requestId", "agentId", "slug")
    extra = {name: call.last[name] for name in names if call.last.get(name)}
    usage = mapping(mapping(call.last.get("message")).get("usage"))
    return {**extra, "usage": usage} if usage else extra


def _session(call: Call, place: Place) -> str:
    session = text_or_none(call.first.get("sessionId")) or place.name
    return f"{session}/{call.agent}" if call.agent else session


def _status(call: Call, tree: Tree) -> Status:
    """Failed calls: API errors, answers that the user interrupted, and tool calls that the user refused."""
    if call.is_api_error:
        return Status(False, [plain(call.message.content or "API error", 300)])
    for result in tree.results_of(call):
        if result.content.startswith(_REJECTED):
            return Status(False, ["the user refused the call"])
    following = tree.texts_after(call)
    if any(text.startswith(_INTERRUPTED) and "for tool use" not in text[:60] for text in following):
        return Status(False, ["interrupted by the user"])
    return Status()


def _roles(session: Session, tree: Tree) -> dict[str, str]:
    """Agent → role: the type named by its metadata file, its call or its lines."""
    roles: dict[str, str] = {}
    named = text_or_none(session.get("agentType"))
    types = {task.prompt: task.type for task in tree.tasks} | {
        task.agent: task.type for task in tree.tasks if task.agent
    }
    for call in tree.calls:
        if call.agent and call.agent not in roles:
            by_call = types.get(call.agent) or types.get(tree.first_text(call.agent) or "")
            roles[call.agent] = named or by_call or text_or_none(call.first.get("agentName")) or _SIDECHAIN
        elif not call.agent and "" not in roles:
            main = text_or_none(call.first.get("agentName")) or tree.agent_setting
            roles |= {"": main} if main else {}
    return roles
