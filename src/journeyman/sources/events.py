"""Message events of OpenTelemetry's GenAI conventions before 1.37, as logged in spans, Logfire and Langfuse.

Source: the conventions' gen_ai.*.message and gen_ai.choice events. Instrumentations log parallel calls as separate
events with the same index: these are one turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.sources.fields import decoded, first, mapping

_ROLES = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}  # fmt: skip
CHOICE = "gen_ai.choice"
EVENT_NAMES = frozenset((*_ROLES, CHOICE))
_KEPT = ("content", "parts", "tool_calls", "name", "finish_reason", "reasoning_content", "refusal")
Turn = dict[str, Any]


def are_events(values: Sequence[Any]) -> bool:
    return any(isinstance(one, Mapping) and str(one.get("event.name")) in EVENT_NAMES for one in values)


def events_apart(events: Sequence[Mapping[str, Any]]) -> tuple[list[Turn], list[Turn]]:
    """Separates the turns of the prompt from the choices that answer them."""
    asked: list[Turn] = []
    for turn in _turns(events):
        last = asked[-1] if asked else {}
        if last.get("role") == turn["role"] == "assistant" and turn.get("tool_calls") and not turn.get("content"):
            asked[-1] = _joined(last, turn)
        else:
            asked.append(turn)
    choices: dict[str, Turn] = {}
    for event in events:
        if event.get("event.name") == CHOICE:
            told = {**(mapping(event.get("message")) or event), "finish_reason": event.get("finish_reason")}
            turn = {
                "role": "assistant",
                "content": "",
                **{key: told[key] for key in _KEPT if told.get(key) is not None},
            }
            index = str(event.get("index", 0))
            choices[index] = _joined(choices[index], turn) if index in choices else turn
    return asked, list(choices.values())


def _turns(events: Sequence[Mapping[str, Any]]) -> Iterator[Turn]:
    for event in events:
        name = str(event.get("event.name"))
        role = first(_ROLES.get(name), event.get("role"))
        if name == CHOICE or role is None:
            continue
        id_ = first(event.get("tool_call_id"), event.get("id")) if role == "tool" else None
        held = {key: event[key] for key in _KEPT if event.get(key) is not None}
        yield {"role": role, "content": "", **held, "tool_call_id": id_}


def _joined(one: Turn, other: Turn) -> Turn:
    """Merges two events of one turn."""
    said = [turn["content"] for turn in (one, other) if turn.get("content")]
    whole = (
        said[0] if len(said) == 1 else [part for text in said for part in (text if isinstance(text, list) else [text])]
    )
    return {**one, **other, "content": whole or "",
            "tool_calls": [*_list(one.get("tool_calls")), *_list(other.get("tool_calls"))]}  # fmt: skip


def _list(value: Any) -> list[Any]:
    value = decoded(value)
    return value if isinstance(value, list) else [value] if value else []
