"""Describes a row that matches no format: its fields, similar formats, and the setting that would read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import files as why
from journeyman.sources.fields import decoded

_SIGNS: Mapping[str, frozenset[str]] = {
    "interactions": frozenset({"agent", "llm", "execution", "task"}),
    "openai_chat": frozenset({"request", "response", "choices", "object", "custom_id", "usage"}),
    "openai_finetune": frozenset({"messages", "tools"}),
    "anthropic": frozenset({"content", "stop_reason", "stop_sequence", "system"}),
    "sharegpt": frozenset({"conversations", "conversation", "from", "value"}),
    "alpaca": frozenset({"instruction", "input", "output"}),
    "trl": frozenset({"prompt", "completion", "chosen", "rejected"}),
    "langfuse": frozenset({"traceId", "trace_id", "observations", "type", "level", "startTime"}),
    "langsmith": frozenset({"run_type", "inputs", "outputs", "trace_id", "session_id"}),
    "litellm": frozenset({"call_type", "startTime", "endTime", "request_id"}),
    "mlflow": frozenset({"info", "data", "spans", "trace", "assessments"}),
    "braintrust": frozenset({"span_attributes", "root_span_id", "span_parents", "metrics", "scores"}),
    "weave": frozenset({"op_name", "started_at", "ended_at", "inputs", "summary", "trace_id"}),
    "otel": frozenset({"attributes", "spanId", "span_id", "resourceSpans", "traceId", "trace_id"}),
    "gateways": frozenset({"request_body", "response_body", "request_id", "response_status"}),
}
_PROMPTS = ("prompt", "question", "query", "instruction", "input", "user", "request", "text", "task", "problem")
_ANSWERS = ("answer", "output", "response", "reply", "completion", "assistant", "result", "solution", "generation")
_DEPTH = 3
Claims = Callable[[Mapping[str, Any]], str | None]
"""An object → the name of the format that matches it."""


def inner_rows(value: Mapping[str, Any], claims: Claims) -> dict[str, list[Any]]:
    """Dotted path → list, for each list in the object whose first objects match a format."""
    return {
        path: found for path, found in _lists(value) if any(isinstance(one, dict) and claims(one) for one in found[:3])
    }


def _lists(value: Mapping[str, Any], path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, list[Any]]]:
    for key, inner in value.items():
        inner, here = decoded(inner), f"{path}.{key}" if path else str(key)
        if isinstance(inner, list) and any(isinstance(one, dict) for one in inner[:3]):
            yield here, inner
        elif isinstance(inner, dict) and depth > 1:
            yield from _lists(inner, here, depth - 1)


def advice(value: Mapping[str, Any]) -> why.UnknownFormat:
    """The reason for the rejection; it names fields and never quotes values."""
    near = sorted(_SIGNS, key=lambda name: -len(_SIGNS[name] & value.keys()))
    near = [name for name in near[:2] if _SIGNS[name] & value.keys()]
    shared = ", ".join(sorted(_SIGNS[near[0]] & value.keys())) if near else ""
    rows_in = next((plain(path, 60) for path, _ in _lists(value)), "")
    prompt, answer = (plain(_path(value, names), 60) for names in (_PROMPTS, _ANSWERS))
    return why.UnknownFormat(_names(value), " and ".join(near), shared, rows_in, prompt, answer)


def _path(value: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The dotted path of the first text whose field has one of the names."""
    texts = list(_texts(value))
    for name in names:
        for path in texts:
            if name in path.rsplit(".", 1)[-1].lower():
                return path
    return ""


def _texts(value: Mapping[str, Any], path: str = "", depth: int = _DEPTH) -> Iterator[str]:
    for key, inner in value.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(inner, str) and inner:
            yield here
        elif isinstance(inner, dict) and depth > 1:
            yield from _texts(inner, here, depth - 1)


def _names(value: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(plain(str(key), 30)) for key in list(value)[:8])
    return shown + (", …" if len(value) > 8 else "")


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": _PROMPTS,
    "answer": _ANSWERS,
    "system": ("system_prompt", "system_message", "system", "instructions"),
    "model": ("model", "model_name", "engine"),
    "provider": ("provider", "vendor"),
    "session": ("session_id", "conversation_id", "thread_id", "chat_id"),
    "id": ("id", "uuid", "request_id"),
    "timestamp": ("timestamp", "created_at", "time"),
}
_EXACT = {"system", "model", "provider", "session", "id", "timestamp"}
"""Fields for which a column is proposed only if its whole name matches."""


def column_candidates(value: Mapping[str, Any]) -> dict[str, list[str]]:
    """Field of [data.columns] → dotted paths of the texts that may contain it, the most likely first."""
    found: dict[str, list[str]] = {}
    texts = list(_texts(value))
    for field, names in _COLUMNS.items():
        paths = [path for name in names for path in texts if _is_called(path, name, exact=field in _EXACT)]
        if paths:
            found[field] = list(dict.fromkeys(paths))
    answers = found.get("answer", [])
    if "prompt" in found:  # input_text may be a prompt but output_text never is, although both names contain "text"
        found["prompt"] = [path for path in found["prompt"] if path not in answers] or found["prompt"]
    return found


def _is_called(path: str, name: str, *, exact: bool) -> bool:
    last = path.rsplit(".", 1)[-1].lower()
    return last == name if exact else name in last


def nearest(value: Mapping[str, Any]) -> dict[str, list[str]]:
    """The (at most two) most similar formats → the fields that they share with the object."""
    shared = {name: sorted(_SIGNS[name] & value.keys()) for name in _SIGNS}
    near = sorted((name for name in shared if shared[name]), key=lambda name: -len(shared[name]))
    return {name: shared[name] for name in near[:2]}
