"""Limits on the JSON schemas in a request: the engine turns each into a grammar, in time that grows quadratically.

Processor time of xllamacpp's engine for 16 tokens, in seconds: 0.4 without a schema, 1.3 with an enum of 500 values
(9 of wall time with 2,000), 2.0 with 200 values of 200 characters, 1.2 with 300 optional properties and 5.0 with 1,000,
6.3 with 50 bounded integers. Two references to the next definition, repeated thirty times, did not finish in 12 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from journeyman.serving.errors import RequestError

MAX_BYTES = 128 << 10
MAX_CHOICES = 500
MAX_TEXT = 32 << 10
MAX_PROPERTIES = 200
MAX_PATTERN = 1000
MAX_COUNT = 1000
MAX_EXPANDED = 10_000
MAX_NESTED = 200

_CHOICES = ("enum", "anyOf", "oneOf", "allOf", "type", "prefixItems")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_CHOICES_OF_A_RANGE = 20
_DEFINITIONS = ("$defs", "definitions")


def check_schemas(schemas: list[tuple[str, Any]]) -> None:
    """Refuses schemas that together are too large to be turned into a grammar in a few seconds.

    Args:
        schemas: (field, schema) for all schemas in one request to the engine.

    Raises:
        RequestError: names the field and the limit.
    """
    total = _Cost()
    for param, schema in schemas:
        if not isinstance(schema, dict):
            raise RequestError(400, f"{param} must be an object, a JSON schema", param)
        total.size += len(json.dumps(schema))
        for place, node in _objects(schema, param):
            _check_counts(node, place)
            total.add(node)
        total.expanded += _Expansion(schema).size_of(schema)
        total.check(param)


@dataclass
class _Cost:
    size: int = 0
    choices: int = 0
    text: int = 0
    pattern: int = 0
    expanded: int = 0
    most_properties: int = 0

    def add(self, node: dict[str, Any]) -> None:
        self.choices += sum(len(node[key]) for key in _CHOICES if isinstance(node.get(key), list))
        self.choices += _CHOICES_OF_A_RANGE * any(isinstance(node.get(key), int | float) for key in _RANGES)
        self.text += sum(len(json.dumps(node[key])) for key in ("enum", "const") if key in node)
        self.pattern += len(node["pattern"]) if isinstance(node.get("pattern"), str) else 0
        named = node.get("properties")
        if isinstance(named, dict):
            self.text += sum(map(len, named))
            self.most_properties = max(self.most_properties, len(named))

    def check(self, param: str) -> None:
        for what, count, most in (
            ("bytes", self.size, MAX_BYTES),
            ("alternatives (values of enum, anyOf, oneOf, allOf; a range counts as 20)", self.choices, MAX_CHOICES),
            ("characters of values and names", self.text, MAX_TEXT),
            ("characters of patterns", self.pattern, MAX_PATTERN),
            ("parts with each $ref put in", self.expanded, MAX_EXPANDED),
            ("properties of one object", self.most_properties, MAX_PROPERTIES),
        ):
            if count > most:
                raise RequestError(400, f"{param}: more than {most:,} {what} in the schemas of one request", param)


class _Expansion:
    """The size of a schema with all references into the same document expanded; a recursive one counts once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def size_of(self, node: Any, depth: int = 0) -> int:
        if depth > MAX_NESTED:
            return MAX_EXPANDED + 1
        if isinstance(node, list):
            return sum(self.size_of(one, depth + 1) for one in node)
        if not isinstance(node, dict):
            return 1
        own = 1 + sum(self.size_of(inner, depth + 1) for key, inner in node.items() if key not in _DEFINITIONS)
        ref = node.get("$ref")
        return own + self._referred(ref, depth) if isinstance(ref, str) else own

    def _referred(self, ref: str, depth: int) -> int:
        if ref not in self._known:
            self._known[ref] = 1  # in effect while it is being expanded, for a reference to itself
            self._known[ref] = self.size_of(self._target(ref), depth + 1)
        return self._known[ref]

    def _target(self, ref: str) -> Any:
        """The target of a reference; None, which counts as small, for one that the engine will refuse."""
        value: Any = self._root
        for part in ref.removeprefix("#").split("/")[1:]:
            value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
        return value


def _check_counts(node: dict[str, Any], place: str) -> None:
    for key in _COUNTS:
        # If a property is called maxItems, the value is a schema.
        value = node.get(key)
        if isinstance(value, int | float) and not 0 <= value <= MAX_COUNT:
            raise RequestError(400, f"{place}.{key} must be between 0 and {MAX_COUNT}", f"{place}.{key}")


def _objects(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    waiting = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            yield place, value
            waiting += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{index}]", inner) for index, inner in enumerate(value)]
