"""Shows what became of each field of a row: for `journeyman ingest --explain`, and for tests that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.records import Interaction, Rejected
from journeyman.sources.fields import decoded
from journeyman.sources.learn import LEARN_FIELDS
from journeyman.sources.status import STATUS_FIELDS

NOT_KEPT = "not kept"
_LAYOUT = {"type", "kind", "object", "index", "role", "from", "lc", "method", "url"}
_TIMES = ("time", "Time", "_at", "created", "TimeUnixNano", "latency", "duration")
_ENDS = ("finish_reason", "stop_reason", "incomplete_details", "finish_reasons")


@dataclass(frozen=True)
class Became:
    """A leaf of the row, and where its value is in the records."""

    path: str
    value: Any
    where: str


def explained(value: Any, records: Sequence[Interaction | Rejected]) -> list[Became]:
    """Every leaf of the row, with where it is stored."""
    kept = [one for one in records if isinstance(one, Interaction)]
    places: dict[str, str] = {}
    texts: list[tuple[str, str]] = []
    for number, one in enumerate(kept):
        name = f"[{number}]." if len(kept) > 1 else ""
        for path, leaf in leaves(one.model_dump(exclude_defaults=True)):
            places.setdefault(_key(leaf), name + path)
            if isinstance(leaf, str) and len(leaf) > 1:
                texts.append((leaf, name + path))
    return [Became(path, leaf, _become(path, leaf, places, texts)) for path, leaf in leaves(value)]


def _become(path: str, leaf: Any, places: dict[str, str], texts: list[tuple[str, str]]) -> str:
    """Where the value is stored; values that are read but not copied are recognized by their field."""
    if leaf is None or leaf == "":
        return "empty"
    where = _where(leaf, places, texts)
    name = path.rsplit(".", 1)[-1].split("[")[0]
    if where != NOT_KEPT:
        return where
    if name in STATUS_FIELDS or name in ("code", "level"):
        return "succeeded"
    if name in LEARN_FIELDS:
        return "whether it is learned"
    if name.endswith(_ENDS):
        return "finish_reason"
    if name in _LAYOUT or path.endswith("event.name"):
        return "how the row is laid out"
    if name.endswith(_TIMES):
        return "timestamp or duration_ms"
    return NOT_KEPT


def _where(leaf: Any, places: dict[str, str], texts: list[tuple[str, str]]) -> str:
    exact = places.get(_key(leaf))
    if exact is not None:
        return exact
    if isinstance(leaf, str) and leaf.strip():
        part = leaf.strip()
        inside = next((path for text, path in texts if part in text), None)
        if inside is not None:
            return f"in {inside}"
        inner = decoded(leaf)
        if not isinstance(inner, str):
            found = {_become(path, one, places, texts) for path, one in leaves(inner)}
            return NOT_KEPT if NOT_KEPT in found or not found else f"decoded: {', '.join(sorted(found)[:3])}"
    return NOT_KEPT


def _key(leaf: Any) -> str:
    if isinstance(leaf, int | float) and not isinstance(leaf, bool):
        return f"number {float(leaf)}"
    return json.dumps(leaf, sort_keys=True, default=str)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything that is neither an object nor a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{place}]")
    else:
        yield path, value
