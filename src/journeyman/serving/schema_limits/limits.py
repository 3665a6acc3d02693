"""Limits on the JSON schemas in a request: the engine turns each into a grammar, in time that grows quadratically.

Processor time of xllamacpp's engine for 16 tokens, in seconds: 0.4 without a schema, 1.3 with an enum of 500 values
(9 of wall time with 2,000), 2.0 with 200 values of 200 characters, 1.2 with 300 optional properties and 5.0 with 1,000,
6.3 with 50 bounded integers. What references and patterns cost is said in references.py, widths.py and
patterns.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.patterns import cost_of
from journeyman.serving.schema_limits.references import References
from journeyman.serving.schema_limits.widths import OPEN, width

MAX_BYTES = 128 << 10
MAX_CHOICES = 500
MAX_TEXT = 32 << 10
MAX_PROPERTIES = 200
MAX_PATTERN = 1000
MAX_COUNT = 1000
MAX_EXPANDED = 10_000
MAX_PLACES = 20_000
MAX_AT_ONCE = 16
MAX_WIDTH = 500
MAX_NAME = 512
"""A name of 32,000 punctuation characters crashes the engine: its regular expressions recurse for each character."""

_CHOICES = ("enum", "anyOf", "oneOf", "allOf", "type", "prefixItems")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_CHOICES_OF_A_RANGE = 20
_SHORT, _MOST_KNOWN = 8 << 10, 512


def check_schemas(schemas: list[tuple[str, Any]]) -> None:
    """Refuses schemas that would crash the engine, or take it more than a few seconds.

    Args:
        schemas: (field, schema) for all schemas in one request to the engine.

    Raises:
        RequestError: names the place, its figure and the limit.
    """
    total = _Cost()
    for param, schema in schemas:
        if not isinstance(schema, dict):
            raise RequestError(400, f"{param} must be an object, a JSON schema", param)
        total = total.plus(_cost(schema, param))
        total.check(param)


def _cost(schema: dict[str, Any], param: str) -> _Cost:
    """The figures of one schema, which is allowed by itself."""
    text = json.dumps(schema)
    if (known := _KNOWN.get(text)) is not None:
        return known
    cost, references, nodes = _Cost(size=len(text)), References(schema), list(_objects(schema, param))
    for place, node in nodes:
        _check_counts(node, place)
        _check_names(node, place)
        cost.add(node)
    cost.check(param)
    for place, node in nodes:
        _check_pattern(node, place)
        _check_references(references, node, place)
    cost.expanded, cost.places = references.size(lambda key, value: 1), references.size(_places)
    cost.check(param)
    _at_most(width(references), MAX_WIDTH, f"ways that may fit the same text ({OPEN} each, 1 for constants)", param)
    if len(text) <= _SHORT:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[text] = cost
    return cost


@dataclass
class _Cost:
    size: int = 0
    choices: int = 0
    text: int = 0
    pattern: int = 0
    expanded: int = 0
    places: int = 0
    most_properties: int = 0

    def plus(self, other: _Cost) -> _Cost:
        most = max(self.most_properties, other.most_properties)
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return _Cost(**{**sums, "most_properties": most})

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
            ("characters of patterns, repetitions and each $ref put in", self.places, MAX_PLACES),
            ("properties of one object", self.most_properties, MAX_PROPERTIES),
        ):
            _at_most(count, most, f"{what} in the schemas of one request", param)


_KNOWN: dict[str, _Cost] = {}
"""Schemas that are allowed, as JSON: agents send the same tools with every request."""


def _at_most(count: int, most: int, what: str, param: str) -> None:
    if count > most:
        shown = f"{count:,}" if count < 10**12 else "over 10^12"
        raise RequestError(400, f"{param}: {shown} {what}; at most {most:,} are allowed", param)


def _places(key: str, value: Any) -> int:
    return cost_of(value).places if key == "pattern" and isinstance(value, str) else 0


def _check_pattern(node: dict[str, Any], place: str) -> None:
    if isinstance(pattern := node.get("pattern"), str):
        what = "places at which one text may be, as one part may go on where the next begins (list words in an enum)"
        _at_most(cost_of(pattern).at_once, MAX_AT_ONCE, what, f"{place}.pattern")


def _check_names(node: dict[str, Any], place: str) -> None:
    longest = max(map(len, node), default=0)
    ref = node.get("$ref")
    longest = max(longest, len(ref)) if isinstance(ref, str) else longest
    _at_most(longest, MAX_NAME, "characters in a name or reference", place)


def _check_references(references: References, node: dict[str, Any], place: str) -> None:
    if references.loops(node):
        raise RequestError(400, f"{place}.$ref refers to itself", f"{place}.$ref")
    if references.doubles(node):
        raise RequestError(
            400, f"{place}: two alternatives that contain this schema again may begin alike, so the engine would "
            "follow twice as many at every level; give each a constant of its own as its first required property",
            place,
        )  # fmt: skip


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
