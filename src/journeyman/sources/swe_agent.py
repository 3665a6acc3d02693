"""SWE-agent trajectories: .traj files, mini-swe-agent's .traj.json, and datasets of them.

Source: SWE-agent's documentation, "Output files" (trajectory, history, info), mini-swe-agent's ("trajectory_format"),
and nebius/SWE-agent-trajectories (turns with `text`, `target`). `history` is the conversation; if the steps have a
`query`, that is what the model saw, since history processors shorten what is sent. A submitted patch is not a success:
only `resolved` or `target` say so. A run that ended with an error or at a limit is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.blocks import blocks_of
from journeyman.sources.fields import NotAnInteraction, kind, mapping, text_or_none, tool_calls, without
from journeyman.sources.history import answered, answers_of
from journeyman.sources.place import Place
from journeyman.sources.status import Status, claimed

_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "ai": "assistant", "tool": "tool"}
_UNFINISHED = ("exit_", "limitsexceeded", "early_exit", "error", "timeout", "incomplete")


def claims(row: Mapping[str, Any]) -> bool:
    steps = row.get("trajectory")
    if isinstance(steps, list) and steps:
        step = mapping(steps[0])
        return ("action" in step and "observation" in step) or ("role" in step and "text" in step)
    return str(row.get("trajectory_format", "")).startswith("mini-swe-agent") and "messages" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    history = row.get("history") or row.get("messages")
    steps = row.get("trajectory")
    if not isinstance(history, list):
        if not (isinstance(steps, list) and steps and "text" in mapping(steps[0])):
            raise NotAnInteraction(why.NotLogged("no history", "the model's input is not in the file"))
        history = steps
    info = mapping(row.get("info"))
    status = _status(row, info)
    messages = [_message(mapping(one), f"history[{index}]") for index, one in enumerate(history)]
    fields = {
        "role": _role(history) or place.role,
        "model": text_or_none(row.get("model_name")) or _model(row),
        "extra": {
            "info": without(info, "submission", "model_stats", "config", "edited_files30", "edited_files50"),
            **without(
                row, "trajectory", "history", "messages", "info", "replay_config", "generated_patch", "eval_logs"
            ),
        },
        **status.fields(),
    }
    queries = _queries(steps, messages)
    if queries is None:
        yield from answers_of(messages, place, **fields)
        return
    for query, answer in queries:
        try:
            yield answered(query, answer, place, id=place.source, session=place.source, **fields)
        except NotAnInteraction as reason:
            yield reason


def _queries(steps: Any, messages: Sequence[Message]) -> list[tuple[list[Message], Message]] | None:
    """Each step's input with its answer, if all steps have one and each has a turn in the history."""
    answers = [one for one in messages if one.role == "assistant" and one.extra.get("train", True)]
    if not isinstance(steps, list) or len(steps) != len(answers):
        return None
    queries = [mapping(step).get("query") for step in steps]
    if not all(isinstance(one, list) and one for one in queries):
        return None
    return [
        ([_message(mapping(turn), f"trajectory[{n}].query[{m}]") for m, turn in enumerate(query or ())], answer)
        for n, (query, answer) in enumerate(zip(queries, answers, strict=True))
    ]


def _message(turn: dict[str, Any], place: str) -> Message:
    role = turn.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise NotAnInteraction(why.UnknownRole(f"{place}.role"))
    content = turn.get("content", turn.get("text"))
    if content is None:
        content = turn.get("system_prompt") if role == "system" else None
    if not isinstance(content, str | list | None):
        raise NotAnInteraction(why.WrongType(f"{place}.content", kind(content), "text"))
    blocks = blocks_of(content, f"{place}.content")
    ids = turn.get("tool_call_ids")
    call_id = turn.get("tool_call_id") or (ids[0] if isinstance(ids, list) and ids else None)
    demo = turn.get("is_demo") or turn.get("mask") is True
    return Message(
        role=_ROLES[role],
        content="".join(blocks.texts),
        tool_calls=tool_calls(turn.get("tool_calls"), f"{place}.tool_calls"),
        tool_call_id=text_or_none(call_id) if role == "tool" else None,
        extra={**blocks.extra, **({"train": False} if demo else {})},
    )


def _role(history: Sequence[Any]) -> str | None:
    """The name of the answering agent; a single agent is always called "main", which is ignored."""
    agents = {text_or_none(mapping(one).get("agent")) for one in history if mapping(one).get("role") == "assistant"}
    named = [one for one in agents if isinstance(one, str) and one not in ("", "main", "primary")]
    return named[0] if len(agents) == 1 and named else None


def _model(row: Mapping[str, Any]) -> str | None:
    config = mapping(mapping(row.get("info")).get("config"))
    return text_or_none(mapping(config.get("model")).get("model_name"))


def _status(row: Mapping[str, Any], info: Mapping[str, Any]) -> Status:
    found = claimed(without(row, "status", "state", "completed"))
    if "target" in row and isinstance(row["target"], bool):
        found = found.also(Status(row["target"], [] if row["target"] else ["target false"]))
    if isinstance(info.get("resolved"), bool):
        found = found.also(claimed({"resolved": info["resolved"]}))
    ended = str(info.get("exit_status") or row.get("exit_status") or "")
    if "(" in ended or ended.lower().startswith(_UNFINISHED):
        found = found.also(Status(False, [f"exit_status {plain(ended, 60)}"]))
    return found
