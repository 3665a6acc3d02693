"""Trajectories with a reward: tau-bench and tau2-bench results, and conversations with `reward` or `resolved`.

Source: sierra-research/tau-bench (EnvRunResult: task_id, reward, info, traj, trial) and tau2-bench (Results: info,
simulations with messages and reward_info); SWE-Gym's and SWE-smith's trajectories (messages, resolved). Every assistant
turn is an answer, and all turns share the outcome: a reward of 1 is a success, a lower one is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.fields import (
    NotAnInteraction,
    first,
    mapping,
    named_role,
    number,
    text_or_none,
    tools_of,
    without,
)
from journeyman.sources.history import answers_of
from journeyman.sources.learn import learned
from journeyman.sources.place import Place
from journeyman.sources.status import Status, at_least, claimed
from journeyman.sources.turns import chat_messages

_TURNS = ("traj", "messages", "trajectory", "conversation")
_SCALE = "not between 0 and 1: set data.success_field and data.success_at_least"


def claims(row: Mapping[str, Any]) -> bool:
    if isinstance(row.get("simulations"), list) and isinstance(row.get("info"), dict):
        return True
    name = _turns(row)
    if name is None or {"response", "choices", "completion"} & row.keys():
        return False
    return name in ("traj", "trajectory") or "reward" in row or row.get("resolved") in (True, False)


def _turns(row: Mapping[str, Any]) -> str | None:
    """The field that contains turns with roles."""
    for name in _TURNS:
        value = row.get(name)
        if isinstance(value, list) and (name == "traj" or (value and {"role", "content"} <= mapping(value[0]).keys())):
            return name
    return None


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    if isinstance(row.get("simulations"), list):
        for index, one in enumerate(row["simulations"]):
            try:
                yield from _simulation(mapping(one), mapping(row.get("info")), place, index)
            except NotAnInteraction as reason:
                yield reason.within(f"simulations[{index}]")
        return
    name = _turns(row)
    if name is None:
        raise NotAnInteraction(why.FieldMissing("turns with roles", ", ".join(_TURNS)))
    if not row[name]:
        cause = plain(str(mapping(row.get("info")).get("error") or "the run wrote nothing"), 120)
        raise NotAnInteraction(why.FieldEmpty(name, cause))
    if not learned(row, "the row"):
        raise NotAnInteraction(why.MarkedNotToTrain())
    status = outcome(row)
    yield from answers_of(
        chat_messages(row[name], name),
        place,
        role=named_role(row, row.get("metadata"), row.get("info")) or place.role,
        tools=tools_of(first(row.get("tools"), row.get("functions"))),
        model=text_or_none(row.get("model")),
        session=_session(row, place),
        extra=without(row, name, "tools", "functions"),
        **status.fields(),
    )


def _session(row: Mapping[str, Any], place: Place) -> str:
    ids = [row.get(name) for name in ("instance_id", "traj_id", "task_id", "trial")]
    joined_ids = "/".join(str(one) for one in ids if isinstance(one, str | int) and one != "")
    return f"{place.source}/{joined_ids}" if joined_ids else place.source


def outcome(row: Mapping[str, Any]) -> Status:
    """The status of a row's turns according to its reward and status fields."""
    return of_reward(row.get("reward")).also(claimed(without(row, "reward"))).also(_of_error(mapping(row.get("info"))))


def _of_error(info: Mapping[str, Any]) -> Status:
    return claimed({"error": info["error"]}) if info.get("error") else Status()


def of_reward(value: Any, name: str = "reward") -> Status:
    """1 is a success and less is a failure; on any other scale the outcome is unknown."""
    if isinstance(value, Mapping):
        value = value.get("reward")
    if value is None:
        return Status()
    reached = number(float(value) if isinstance(value, bool) else value)
    if reached is None:
        return at_least(value, 1.0, name)
    if reached > 1:
        return Status(notes=[note.UnknownStatus("reward", f"{reached:g}", _SCALE).record()])
    return at_least(round(reached, 6), 1.0, name)


def _simulation(
    row: Mapping[str, Any], info: Mapping[str, Any], place: Place, index: int
) -> Iterator[Interaction | NotAnInteraction]:
    """A tau2-bench simulation: the simulated user has tools too, whose calls and results the agent never saw."""
    world, agent = mapping(info.get("environment_info")), mapping(info.get("agent_info"))
    turns = row.get("messages")
    if not isinstance(turns, list):
        raise NotAnInteraction(why.FieldMissing("messages"))
    seen = [one for turn in turns if (one := _seen(mapping(turn))) is not None]
    notes = []
    policy = text_or_none(world.get("policy"))
    if policy:
        notes.append(note.PolicyAsSystem("tau2-bench").record())
    if len(seen) < len(turns):
        notes.append(note.TurnsNotKept("calls of the simulated user's own tools").record())
    status = of_reward(mapping(row.get("reward_info")).get("reward"))
    system = [Message(role="system", content=policy)] if policy else []
    yield from answers_of(
        [*system, *chat_messages(seen, "messages")],
        place,
        role=named_role(agent.get("metadata")) or place.role,
        tools=tools_of(world.get("tool_defs")),
        model=text_or_none(agent.get("llm")),
        session=f"{place.source}/{row.get('id') or index}",
        succeeded=status.succeeded,
        errors=status.errors,
        notes=[*status.notes, *notes],
        extra={"simulation": without(row, "messages")},
    )


def _seen(turn: dict[str, Any]) -> dict[str, Any] | None:
    """A turn in OpenAI's shape, or None for a tool turn of the simulated user."""
    role = turn.get("role")
    if role == "tool":
        if turn.get("requestor") == "user":
            return None
        return {"role": "tool", "tool_call_id": turn.get("id"), "content": turn.get("content") or ""}
    if role == "user" and turn.get("tool_calls"):
        return {"role": "user", "content": turn["content"]} if turn.get("content") else None
    kept = {name: turn[name] for name in ("role", "content", "tool_calls") if turn.get(name) is not None}
    return {"content": "", **kept}
