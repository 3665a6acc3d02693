"""Langfuse: observations from blob exports, the API and table exports, and traces downloaded from the web page.

Source: Langfuse's "blob storage export field reference" (snake_case), its public API (camelCase; a trace contains
`observations` and `scores`) and the web page's download ({trace, observations}). `input`, `output` and
`model_parameters` may be JSON encoded as text; empty text means unset; only a GENERATION is a model call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import Answer, answers_of, interactions_of, with_echo
from journeyman.sources.asking import asked_of
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    first,
    iso_time,
    kind,
    mapping,
    named_role,
    number,
    one_of,
    text_or_none,
    tool_calls,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import Status, claimed

_TYPES = {
    "GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL",
}  # fmt: skip
_READ = (
    "id", "input", "output", "start_time", "end_time", "model_parameters", "level", "status_message", "session_id",
    "provided_model_name", "model", "tool_calls", "tool_definitions", "latency", "metadata",
)  # fmt: skip
_OF_TRACE = ("session_id", "user_id", "tags", "metadata", "name", "environment", "release", "version")
_TABLE = {"input", "output", "start_time"}
_OF_TABLE = {"trace_name", "usage_details", "model_parameters", "time_to_first_token", "provided_model_name"}


def claims(row: Mapping[str, Any]) -> bool:
    if one_of(row.get("type"), _TYPES) and ("trace_id" in row or "traceId" in row):
        return True
    listed = row.get("observations")
    if isinstance(listed, list):
        known = any(isinstance(one, Mapping) and claims(one) for one in listed[:3])
        return known or isinstance(row.get("trace"), dict) or {"timestamp", "input", "output"} <= row.keys()
    return _is_table(row)


def _is_table(row: Mapping[str, Any]) -> bool:
    """Whether it is a row of an exported table, with column names of the web page or of the API."""
    if "Input" not in row and "traceId" not in row and "trace_id" not in row:
        return False
    named = {_snake(key): value for key, value in row.items()}
    if not named.keys() >= _TABLE:
        return False
    return one_of(named.get("type"), _TYPES) or ("type" not in named and bool(_OF_TABLE & named.keys()))


def _snake(name: str) -> str:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name.strip()).replace(" ", "_").lower()


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    listed = row.get("observations")
    if not isinstance(listed, list):
        yield from _observation({_snake(key): value for key, value in row.items()}, place)
        return
    if not any(isinstance(one, Mapping) for one in listed):
        raise NotAnInteraction(
            why.NotLogged("a trace without observations, or only with their ids", "export the observations")
        )
    trace = {_snake(key): value for key, value in (mapping(row.get("trace")) or row).items()}
    scores = first(row.get("scores"), trace.get("scores"))
    for number_, one in enumerate(listed):
        observation = {_snake(key): value for key, value in mapping(one).items()}
        try:
            if not observation:
                raise NotAnInteraction(why.WrongType("an observation", kind(one), "an object"))
            yield from _observation(_with_trace(observation, trace, scores), place)
        except NotAnInteraction as reason:
            yield reason.within(f"observations[{number_}]")


def _with_trace(observation: Mapping[str, Any], trace: Mapping[str, Any], scores: Any) -> dict[str, Any]:
    """The observation with the trace's data for all its calls, and with its own scores."""
    id_ = observation.get("id")
    known = [mapping(one) for one in scores] if isinstance(scores, list) else []
    own = [one for one in known if first(one.get("observationId"), one.get("observation_id"), id_) == id_]
    inherited = {key: trace[key] for key in _OF_TRACE if trace.get(key) not in (None, "", [], {})}
    metadata = {**mapping(inherited.get("metadata")), **mapping(observation.get("metadata"))}
    joined = {**inherited, **{key: value for key, value in observation.items() if value is not None}}
    return {**joined, "metadata": metadata, **({"scores": own} if own else {})}


def _observation(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    type_ = first(row.get("type"), "GENERATION" if first(row.get("model"), row.get("provided_model_name")) else None)
    if type_ != "GENERATION":
        raise NotAnInteraction(why.NotAModelCall("an observation", plain(str(type_), 40)))
    parameters, metadata = mapping(row.get("model_parameters")), mapping(row.get("metadata"))
    call = with_echo(asked_of(row.get("input"), "input"), row.get("output"), "output")
    base = {
        "id": text_or_none(row.get("id")) or place.source,
        "source": place.source,
        "role": named_role(row.get("metadata"), row.get("tags")) or place.role,
        "tools": _tools(row.get("tool_definitions")) or call.tools,
        "provider": text_or_none(metadata.get("ls_provider")),
        "model": text_or_none(first(row.get("provided_model_name"), row.get("model"))),
        "duration_ms": first(between_ms(row.get("start_time"), row.get("end_time")), _latency_ms(row)),
        "max_tokens": whole(_as_int(first(*(parameters.get(key) for key in ("max_completion_tokens", "max_tokens",
                                                                            "maxTokens", "max_output_tokens"))))),
        "timestamp": iso_time(row.get("start_time")),
        "session": text_or_none(first(row.get("session_id"), row.get("trace_id"))),
        "extra": without(row, *_READ)
        | without({"metadata": metadata, "request": call.settings, "model_parameters": parameters}),
    }  # fmt: skip
    yield from interactions_of(base, call, _answers(row), _status(row))


def _status(row: Mapping[str, Any]) -> Status:
    """Status from the level and an error message, and notes on scores, whose meaning is unknown."""
    level, message = str(row.get("level")).upper(), text_or_none(row.get("status_message"))
    status = Status()
    if level == "ERROR":
        status = Status(False, [plain(message or "level ERROR", 300)])
    elif level == "WARNING":
        status = Status(notes=[note.LogLevel(level, plain(message or "", 120)).record()])
    output = mapping(row.get("output"))
    envelope = output if output.keys() & {"choices", "candidates"} or output.get("object") == "response" else {}
    return status.also(claimed({key: row[key] for key in ("scores", "error") if key in row}, envelope))


def _answers(row: Mapping[str, Any]) -> list[Answer]:
    given = answers_of(row.get("output"), "output")
    calls = row.get("tool_calls")
    if isinstance(calls, list):
        calls = [decoded(call) for call in calls]
    own = tool_calls(calls, "tool_calls")
    if own and not given:
        return [{"output": "", "output_calls": own}]
    if own and len(given) == 1 and not given[0].get("output_calls"):
        return [{**given[0], "output_calls": own}]
    return given


def _tools(value: Any) -> list[dict[str, Any]]:
    """Tool definitions; blob exports contain them as name → definition, encoded as text."""
    definitions = decoded(value)
    if isinstance(definitions, dict):
        definitions = [{"name": name, **mapping(one)} for name, one in definitions.items()]
    return tools_of(definitions)


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _latency_ms(row: Mapping[str, Any]) -> float | None:
    latency = number(row.get("latency"))  # seconds; milliseconds in integrations before April 2026
    return None if latency is None else latency * 1000
