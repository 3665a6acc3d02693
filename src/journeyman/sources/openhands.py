"""OpenHands: event streams (a file of events), and output.jsonl of its evaluations ({instance_id, history, …}).

Source: All-Hands-AI/OpenHands (events' serialization, EvalOutput) and OpenHands/software-agent-sdk (SystemPromptEvent,
MessageEvent, ActionEvent, ObservationEvent). An action names the response that it comes from (`tool_call_metadata`, or
`tool_call` and `llm_response_id`): the actions of one response are one answer. Success is the report's `resolved`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.fields import NotAnInteraction, kind, mapping, named_role, text_or_none, without
from journeyman.sources.openhands_events import Conversation
from journeyman.sources.place import Place
from journeyman.sources.session_files import is_openhands
from journeyman.sources.sessions import Line, Session
from journeyman.sources.status import Status, claimed


def claims(row: Mapping[str, Any]) -> bool:
    if isinstance(row, Session):
        return row.format == "openhands"
    history = row.get("history")
    if isinstance(history, list) and history:
        first = history[0][0] if isinstance(history[0], list) and history[0] else history[0]
        return is_openhands(mapping(first))
    return is_openhands(row)


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    if isinstance(row, Session):
        yield from row.damaged
        yield from _conversation(row.lines, row, place, of_lines=True)
        return
    history = row.get("history")
    if history is None:
        raise NotAnInteraction(
            why.LineOfSession("a single event of an OpenHands session", "pass the file with all of its events")
        )
    if not isinstance(history, list):
        raise NotAnInteraction(why.WrongType("history", kind(history), "a list"))
    events = [one for pair in history for one in (pair if isinstance(pair, list) else [pair])]
    yield from _conversation([Line(n, mapping(one)) for n, one in enumerate(events, 1)], row, place, of_lines=False)


def _conversation(
    events: Sequence[Line], row: Mapping[str, Any], place: Place, *, of_lines: bool
) -> Iterator[Interaction | NotAnInteraction]:
    metadata = mapping(row.get("metadata"))
    status = _outcome(row)
    session = text_or_none(row.get("instance_id"))
    fields = {
        "role": named_role(metadata) or place.role,
        "model": text_or_none(mapping(metadata.get("llm_config")).get("model")),
        "session": f"{place.source}/{session}" if session else place.source,
        "extra": without(row, "history", "metadata", "instruction", "metrics", "instance", "git_patch", "test_result"),
        **status.fields(),
    }
    damaged = {one.line for one in row.damaged} if isinstance(row, Session) else set()
    yield from Conversation(place, fields, of_lines=of_lines).read(events, {one for one in damaged if one is not None})


def _outcome(row: Mapping[str, Any]) -> Status:
    result = mapping(row.get("test_result"))
    reports = [mapping(row.get("report")), mapping(result.get("report")), result, row]
    said = [claimed({"resolved": one["resolved"]}) for one in reports if one.get("resolved") is not None]
    found = Status()
    for one in [*said, claimed({"error": row.get("error")})]:
        found = found.also(one)
    return found
