"""LangSmith runs: bulk exports (Parquet), the runs query's JSON, JSONL, run trees, and batches of its ingestion API.

Source: LangSmith's "run data format", LangChain's serialized messages ({"lc": 1, "kwargs": {…}}) and the batch
endpoint (POST /runs/batch: {post, patch}, joined by id). Only runs of type llm are model calls; inputs and outputs may
be JSON encoded as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import answers_of, interactions_of, with_echo
from journeyman.sources.asking import asked_of
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    first,
    iso_time,
    mapping,
    named_role,
    text_or_none,
    tools_of,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import claimed

_READ = ("id", "inputs", "outputs", "error", "start_time", "end_time", "session_id", "trace_id", "extra", "child_runs")
_ANSWERS = ("generations", "choices", "message", "messages", "output", "content", "role", "tool_calls", "text")


def claims(row: Mapping[str, Any]) -> bool:
    return ("run_type" in row and ("inputs" in row or "child_runs" in row)) or _is_batch(row)


def _is_batch(row: Mapping[str, Any]) -> bool:
    listed = [row[name] for name in ("post", "patch") if isinstance(row.get(name), list)]
    runs = [mapping(one) for one in (one for half in listed for one in half[:3])]
    return any("run_type" in run or ("trace_id" in run and "outputs" in run) for run in runs)


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    for name, run in _runs(row):
        try:
            yield from _interactions(run, place)
        except NotAnInteraction as reason:
            yield reason.within(name) if name else reason


def _runs(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each run with its place; a run tree is its root and all runs below."""
    if _is_batch(row) and "run_type" not in row:
        yield from _joined(row)
        return
    yield "", row
    below = row.get("child_runs")
    for number, child in enumerate(below if isinstance(below, list) else []):
        for name, run in _runs(mapping(child)):
            yield f"child_runs[{number}]{'.' if name else ''}{name}", run


def _joined(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The runs of a batch, each with the fields that its patch adds; a root run's patch may name only the trace."""
    posted, patched = (row[half] if isinstance(row.get(half), list) else [] for half in ("post", "patch"))
    patches: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, one in enumerate(patched):
        place, before = patches.get(_id(one), (number, {}))
        patches[_id(one)] = place, before | without(mapping(one))
    for number, one in enumerate(posted):
        _, patch = patches.pop(_id(one), (0, {}))
        yield f"post[{number}]", mapping(one) | patch
    for number, patch in patches.values():
        yield f"patch[{number}]", patch


def _id(run: Any) -> str:
    return str(first(mapping(run).get("id"), mapping(run).get("run_id"), mapping(run).get("trace_id")))


def _interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    if "run_type" not in row and "inputs" not in row:
        raise NotAnInteraction(
            why.NotLogged("a patch without its run", "put the batch that posted the run into the same object")
        )
    if row.get("run_type") not in ("llm", "chat_model"):
        raise NotAnInteraction(why.NotAModelCall("a run", plain(str(row.get("run_type")), 40)))
    inputs, outputs, extra = mapping(row.get("inputs")), mapping(row.get("outputs")), mapping(row.get("extra"))
    metadata, settings = mapping(extra.get("metadata")), mapping(extra.get("invocation_params"))
    thread = first(metadata.get("thread_id"), metadata.get("session_id"), metadata.get("conversation_id"))
    call = with_echo(asked_of(inputs, "inputs"), outputs, "outputs")
    asked = {**call.settings, **settings}
    left = {"extra": extra, "inputs": call.settings, "outputs": without(outputs, *_ANSWERS)}
    base = {
        "id": text_or_none(row.get("id")) or place.source,
        "source": place.source,
        "role": named_role(metadata, row.get("tags")) or place.role,
        "tools": tools_of(first(settings.get("tools"), settings.get("functions"))) or call.tools,
        "provider": text_or_none(metadata.get("ls_provider")),
        "model": text_or_none(first(metadata.get("ls_model_name"), asked.get("model"), asked.get("model_name"))),
        "duration_ms": between_ms(row.get("start_time"), row.get("end_time")),
        "max_tokens": whole(first(asked.get("max_tokens"), metadata.get("ls_max_tokens"))),
        "timestamp": iso_time(row.get("start_time")),
        "session": text_or_none(first(thread, row.get("trace_id"))),
        "extra": without(row, *_READ) | without(left),
    }
    yield from interactions_of(base, call, answers_of(outputs, "outputs"), claimed(row))
