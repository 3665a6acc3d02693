"""Upper bounds in the schemas of tools that the engine's grammar cannot count to. Coding agents have tools whose text
may be half a million characters long; an answer ends far below that, and the agent checks the call anyway."""

from __future__ import annotations

from typing import Any

from journeyman.serving.schema_limits.ranges import MAX_COUNT

_UPPER = ("maxLength", "maxItems", "maxProperties")
_VALUES = ("const", "default", "enum", "examples")
"""Keys of a schema whose values are no schemas."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keys of a schema with schemas by name, which may be any name."""


def without_large_bounds(schema: Any, tool: str, ignored: list[str]) -> Any:
    """The schema without upper bounds above MAX_COUNT.

    Args:
        tool: its place in the request, which is added to `ignored` with the bound's name.
    """
    if isinstance(schema, list):
        return [without_large_bounds(one, tool, ignored) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in _UPPER and isinstance(value, int) and value > MAX_COUNT:
            name = f"{tool} ({key} above {MAX_COUNT})"
            if name not in ignored:
                ignored.append(name)
        elif key in _NAMED and isinstance(value, dict):
            kept[key] = {name: without_large_bounds(one, tool, ignored) for name, one in value.items()}
        else:
            kept[key] = value if key in _VALUES else without_large_bounds(value, tool, ignored)
    return kept
