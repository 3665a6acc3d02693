"""Inspect evaluation logs as JSON: {version, status, eval, samples: [{input, messages, output, scores, target}]}.

Source: inspect.aisi.org.uk, "Log Files" (EvalLog, EvalSample) and "Scorers" (C, I, P, N; numbers). Every turn that the
model generated is an answer; turns of the dataset's input are not. All turns of a sample share its outcome, a success
if all scores are correct. `inspect log convert --to json` converts the binary form (.eval) to JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message, ToolCall
from journeyman.sources.blocks import blocks_of
from journeyman.sources.fields import (
    NotAnInteraction,
    decoded,
    finish_reason,
    iso_time,
    kind,
    mapping,
    named_role,
    number,
    text_or_none,
    tools_of,
    without,
)
from journeyman.sources.history import answers_of
from journeyman.sources.place import Place
from journeyman.sources.status import Status, of_error, of_word

_LETTERS = {"C": True, "I": False, "P": False, "N": False}
_ATTACHED = "attachment://"


def claims(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("eval"), dict) and ("samples" in row or {"version", "status"} <= row.keys())


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    samples, eval_ = row.get("samples"), mapping(row.get("eval"))
    if not samples:
        raise NotAnInteraction(
            why.NotLogged(
                "an Inspect log without samples, which are in the .eval file or next to it",
                "convert that to JSON with `inspect log convert --to json`",
            )
        )
    if not isinstance(samples, list):
        raise NotAnInteraction(why.WrongType("samples", kind(samples), "a list"))
    for index, one in enumerate(samples):
        sample = mapping(one)
        try:
            yield from _sample(sample, eval_, text_or_none(row.get("status")), place, index)
        except NotAnInteraction as reason:
            shown = plain(str(sample.get("id", index)), 40)
            error = of_error(sample.get("error")).errors
            yield reason.within(f"sample {shown}" + (f" (it ended by an error: {error[0]})" if error else ""))


def _sample(
    sample: dict[str, Any], eval_: dict[str, Any], log_status: str | None, place: Place, index: int
) -> Iterator[Interaction | NotAnInteraction]:
    attached = mapping(sample.get("attachments"))
    turns = _turns(sample)
    messages = [_message(turn, f"messages[{n}]", attached) for n, turn in enumerate(turns)]
    status = _status(sample, log_status)
    tools = _tools(sample)
    if not tools and any(one.tool_calls for one in messages):
        status = status.also(Status(notes=[note.ToolsNotKept("no event of the sample holds them").record()]))
    name = f"{sample.get('id', index)}/{sample.get('epoch', 1)}"
    run = text_or_none(eval_.get("run_id")) or text_or_none(eval_.get("task_id"))
    provider, _, named = (text_or_none(eval_.get("model")) or "").partition("/")
    model = text_or_none(mapping(sample.get("output")).get("model")) or named or provider
    yield from answers_of(
        messages,
        place,
        _by_turn(sample, turns),
        role=named_role(sample.get("metadata"), eval_.get("metadata")) or place.role,
        tools=tools,
        provider=provider if named else None,
        model=model or None,
        timestamp=iso_time(sample.get("started_at")) or iso_time(eval_.get("created")),
        session=f"{run or place.source}/{name}",
        extra={
            **without(sample, "messages", "output", "events", "attachments", "store", "input", "timelines"),
            "eval": {key: eval_[key] for key in ("task", "run_id", "solver") if eval_.get(key)},
        },
        **status.fields(),
    )


def _turns(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sample's conversation, or, if it was not stored, its input and output."""
    turns = sample.get("messages")
    if isinstance(turns, list) and turns:
        return [mapping(one) for one in turns]
    input_ = sample.get("input")
    asked = [mapping(one) for one in input_] if isinstance(input_, list) else [{"role": "user", "content": input_}]
    choices = mapping(sample.get("output")).get("choices")
    if not isinstance(choices, list) or not choices:
        raise NotAnInteraction(why.FieldMissing("messages or output"))
    return [*asked, {"role": "assistant", **mapping(mapping(choices[0]).get("message"))}]


def _message(turn: dict[str, Any], place: str, attached: Mapping[str, Any]) -> Message:
    role = turn.get("role")
    if not isinstance(role, str) or role not in ("system", "user", "assistant", "tool"):
        raise NotAnInteraction(why.UnknownRole(f"{place}.role"))
    blocks = blocks_of(_whole(turn.get("content"), attached), f"{place}.content")
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise NotAnInteraction(why.WrongType(f"{place}.tool_calls", kind(calls), "a list"))
    extra = dict(blocks.extra)
    if role == "assistant" and turn.get("source") == "input":
        extra["train"] = False
    if mapping(turn.get("error")):
        extra["error"] = plain(str(mapping(turn["error"]).get("message") or "error"), 300)
    return Message(
        role=role,
        content="".join(blocks.texts) or (extra.get("error", "") if role == "tool" else ""),
        tool_calls=[_call(mapping(one), f"{place}.tool_calls[{n}]") for n, one in enumerate(calls)],
        tool_call_id=text_or_none(turn.get("tool_call_id")),
        extra=extra,
    )


def _whole(content: Any, attached: Mapping[str, Any]) -> Any:
    """The content, with Inspect's separately stored attachments put back."""
    if isinstance(content, str) and content.startswith(_ATTACHED):
        found = attached.get(content.removeprefix(_ATTACHED))
        if not isinstance(found, str):
            raise NotAnInteraction(why.NotLogged("its text is an attachment that is not in the log"))
        return found
    if isinstance(content, list):
        return [
            {**one, "text": _whole(one["text"], attached)} if isinstance(one, dict) and "text" in one else one
            for one in content
        ]
    return content


def _call(call: dict[str, Any], place: str) -> ToolCall:
    """A tool call in OpenAI's shape: Inspect's `function` is the name, OpenAI's an object of name and arguments."""
    inner = mapping(call.get("function"))
    name = call.get("function") if not inner else inner.get("name")
    if not isinstance(name, str) or not name:
        raise NotAnInteraction(why.FieldMissing("name", place))
    arguments = decoded(inner.get("arguments") if inner else call.get("arguments"))
    id_ = text_or_none(call.get("id"))
    return ToolCall(name=name, arguments={} if arguments in (None, "") else arguments, id=id_)


def _by_turn(sample: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Fields of single turns: the reasoning, the model, and the finish reason of the last one."""
    found: dict[int, dict[str, Any]] = {}
    for index, turn in enumerate(turns):
        if turn.get("role") != "assistant":
            continue
        thoughts = blocks_of(turn.get("content"), "content").thoughts
        found[index] = {"reasoning": "\n".join(thoughts) or None}
        if model := text_or_none(turn.get("model")):
            found[index]["model"] = model
    output = mapping(sample.get("output"))
    choices = output.get("choices")
    if found and isinstance(choices, list) and choices:
        choice, last = mapping(choices[0]), max(found)
        if mapping(choice.get("message")).get("content") == turns[last].get("content"):
            seconds = number(output.get("time"))
            found[last] |= {
                "finish_reason": finish_reason(choice.get("stop_reason")),
                "duration_ms": None if seconds is None else seconds * 1000,
            }
    return found


def _tools(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools of the first model event that has some."""
    events = sample.get("events")
    for event in events if isinstance(events, list) else []:
        one = mapping(event)
        if one.get("event") == "model" and one.get("tools"):
            return tools_of(one["tools"])
    return []


def _status(sample: Mapping[str, Any], log_status: str | None) -> Status:
    found = of_error(sample.get("error"))
    scores = sample.get("scores")
    if not isinstance(scores, dict) or not scores:
        scores = {"score": sample["score"]} if sample.get("score") is not None else {}
    for scorer, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        found = found.also(_of_score(value, plain(str(scorer), 40)))
    limit = mapping(sample.get("limit"))
    if limit:
        stopped = note.StoppedByLimit(plain(str(limit.get("type")), 40))
        found = found.also(Status(notes=[stopped.record()]) if scores else Status(False, [stopped.sentence()]))
    if not scores and log_status not in (None, "success", "started"):
        found = found.also(of_word(log_status))
    return found


def _of_score(value: Any, scorer: str) -> Status:
    """C and 1 are correct; I, P, N and 0 are not; anything else needs a threshold from the user."""
    if isinstance(value, str) and value.strip() in _LETTERS:
        right = _LETTERS[value.strip()]
        return Status(right, [] if right else [f"scorer {scorer}: {value.strip()}"])
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return Status(bool(value), [] if value else [f"scorer {scorer}: {value}"])
    if isinstance(value, str) and of_word(value).succeeded is not None:
        return of_word(value, f"scorer {scorer}")
    shown = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else plain(repr(value), 40)
    path = f"scores.{scorer}.value"
    shown = kind(value) if isinstance(value, dict | list) else shown
    unknown = note.UnknownStatus(f"scorer {scorer}", shown, f"set data.success_field = {path!r}")
    return Status(notes=[unknown.record()])
