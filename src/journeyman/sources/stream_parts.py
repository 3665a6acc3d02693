"""Parts of an answer that a stream names before they exist, or that it first gave as null."""

from __future__ import annotations

from typing import Any

_MOST_PARTS = 10_000


def place_of(index: Any) -> int:
    return index if isinstance(index, int) and 0 <= index < _MOST_PARTS else 0


def part_at(values: list[Any], index: Any, new: dict[str, Any]) -> dict[str, Any]:
    """The element at the index, which a stream may name before earlier ones."""
    place = place_of(index)
    while len(values) <= place:
        values.append({**new} if len(values) == place else {})
    if not isinstance(values[place], dict):
        values[place] = {**new}
    found: dict[str, Any] = values[place]
    return found


def listed(holder: dict[str, Any], name: str) -> list[Any]:
    """The list of this name, which is made if there is none, or null."""
    if not isinstance(holder.get(name), list):
        holder[name] = []
    found: list[Any] = holder[name]
    return found


def append(holder: dict[str, Any], name: str, text: str) -> None:
    held = holder.get(name)
    holder[name] = held + text if isinstance(held, str) else text
