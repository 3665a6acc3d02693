"""MLflow traces: {info, data: {spans}}, as written by the client, its command line and search_traces.

Source: MLflow's "Trace Data Structure" (trace info, spans, assessments). A span's attributes are JSON as text; only
spans of type CHAT_MODEL or LLM are model calls, which sources.otel reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources import otel
from journeyman.sources.fields import NotAnInteraction, decoded, first, mapping, named_role, without
from journeyman.sources.place import Place
from journeyman.sources.status import of_word

_TYPE = "mlflow.spanType"


def claims(row: Mapping[str, Any]) -> bool:
    return _is_trace(row) or _is_trace(mapping(row.get("trace")) if "trace" in row else {})


def _is_trace(row: Mapping[str, Any]) -> bool:
    if "data" in row and "info" in row:
        return isinstance(mapping(row["data"]).get("spans"), list)
    spans = decoded(row["spans"]) if "spans" in row else None
    return isinstance(spans, list) and any(_TYPE in mapping(mapping(one).get("attributes")) for one in spans[:3])


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    if "trace" in row and not _is_trace(row):
        row = {**mapping(row["trace"]), "row": without(row, "trace")}
    info = mapping(row.get("info")) or without(row, "spans", "data")
    spans = decoded(first(mapping(row.get("data")).get("spans"), row.get("spans")))
    if not isinstance(spans, list) or not spans:
        raise NotAnInteraction(why.NotLogged("the trace contains no spans", "it was exported with include_spans=False"))
    for number, one in enumerate(spans):
        try:
            for found in otel.span_interactions(_with_trace(mapping(one), info, row), place):
                yield _judged(found, first(info.get("state"), info.get("status")))
        except NotAnInteraction as reason:
            yield reason.within(f"spans[{number}]")


def _judged(found: Interaction, state: Any) -> Interaction:
    """The status of a successful call in a failed trace: whether its answer was the reason is unknown."""
    if found.succeeded is not True or of_word(state).succeeded is not False:
        return found
    unknown = note.UnknownStatus("the trace's state", plain(str(state), 40)).record()
    return found.model_copy(update={"succeeded": None, "notes": [*found.notes, unknown]})


def _with_trace(span: Mapping[str, Any], info: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The span with the session, role and assessments of its trace; the meaning of assessments is unknown."""
    attributes = mapping(span.get("attributes"))
    if _TYPE not in attributes and span.get("span_type"):
        attributes = {**attributes, _TYPE: span["span_type"]}
    attributes = {**attributes, **{ours: span[name] for name, ours in _FLAT if name in span and ours not in attributes}}
    if _TYPE not in attributes:
        raise NotAnInteraction(why.NotAModelCall("a span"))
    tags, metadata = mapping(info.get("tags")), mapping(info.get("trace_metadata"))
    inherited = {"session.id": metadata.get("mlflow.trace.session"), "agent.role": named_role(metadata, tags)}
    attributes |= {name: value for name, value in inherited.items() if value and name not in attributes}
    scores = {"scores": info["assessments"]} if info.get("assessments") else {}
    trace = first(info.get("trace_id"), info.get("request_id"), span.get("trace_id"))
    return {**without(span, "inputs", "outputs"), "attributes": attributes, "trace_id": trace, **scores,
            "trace": without(info, "assessments"), **without({"row": row.get("row")})}  # fmt: skip


_FLAT = (("inputs", "mlflow.spanInputs"), ("outputs", "mlflow.spanOutputs"))
