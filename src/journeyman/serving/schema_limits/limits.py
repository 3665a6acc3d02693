"""Limits on the JSON schemas in a request: the engine turns each into a grammar, in time that grows quadratically.

Processor time of xllamacpp's engine for 16 tokens, in seconds: 0.4 without a schema, 1.3 with an enum of 500 values
(9 of wall time with 2,000), 2.0 with 200 values of 200 characters, 1.2 with 300 optional properties and 5.0 with 1,000,
6.3 with 50 bounded integers. What recursion and patterns cost is said in recursion.py, widths.py and patterns.py.

The check itself takes time in proportion to the schema's length: it looks once at each schema that the engine would
read, and stops at the first limit that is exceeded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.names import check_names
from journeyman.serving.schema_limits.patterns import cost_of
from journeyman.serving.schema_limits.ranges import check_bounds, has_range
from journeyman.serving.schema_limits.reading import Reading
from journeyman.serving.schema_limits.recursion import Recursion
from journeyman.serving.schema_limits.references import MAX_EXPANDED, Place, References, at_most, written
from journeyman.serving.schema_limits.widths import OPEN, width

MAX_BYTES = 128 << 10
MAX_CHOICES = 500
MAX_TEXT = 32 << 10
MAX_PROPERTIES = 200
MAX_PATTERN = 1000
MAX_PLACES = 20_000
MAX_AT_ONCE = 16
MAX_WIDTH = 500

_CHOICES_OF_A_RANGE = 20
_SHORT, _MOST_KNOWN = 8 << 10, 512


def check_schemas(schemas: list[tuple[str, Any]]) -> None:
    """Refuses schemas that would crash the engine, or take it more than a few seconds.

    Args:
        schemas: (field, schema) for all schemas in one request to the engine.

    Raises:
        RequestError: names the place, its figure and the limit.
    """
    total, referring = _Cost(), []
    for param, schema in schemas:
        if not isinstance(schema, dict):
            raise RequestError(400, f"{param} must be an object, a JSON schema", param)
        cost, references = _cost(schema, param)
        total = total.plus(cost)
        total.check(param)
        referring += [(param, references)] if references is not None else []
    check_names(referring)


def _cost(schema: dict[str, Any], param: str) -> tuple[_Cost, References | None]:
    """The figures of one schema, which is allowed by itself, and its references if it has any."""
    text = json.dumps(schema)
    if (known := _KNOWN.get(text)) is not None:
        return known
    cost = _Cost(size=len(text))
    cost.check(param)
    references = References(json.loads(text), param)  # parsed, so that no two schemas in it are the same object
    for place, reading in references.places:
        check_bounds(reading, place)
        cost.add(reading)
    cost.check(param)
    for place, reading in references.places:
        _check_pattern(reading, place)
        _check_loop(references, reading, place)
    cost.expanded, cost.places = references.size(_parts), references.size(_places)
    cost.check(param)
    at_most(width(references), MAX_WIDTH, f"ways that may fit the same text ({OPEN} each, 1 for constants)", param)
    _check_recursion(references)
    found = cost, references if references.targets else None
    if len(text) <= _SHORT:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[text] = found
    return found


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

    def add(self, reading: Reading) -> None:
        if reading.kind in ("choice", "all_of", "tuple"):
            self.choices += len(reading.inner)
        self.choices += len(reading.values) + _CHOICES_OF_A_RANGE * has_range(reading)
        self.text += sum(len(json.dumps(value)) for value in reading.values) + sum(map(len, reading.properties))
        self.pattern += len(_pattern(reading))
        self.most_properties = max(self.most_properties, len(reading.properties))

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
            at_most(count, most, f"{what} in the schemas of one request", param)


_KNOWN: dict[str, tuple[_Cost, References | None]] = {}
"""Schemas that are allowed, as JSON: agents send the same tools with every request."""


def _pattern(reading: Reading) -> str:
    return str(reading.node.get("pattern", "")) if reading.kind == "string" else ""


def _parts(reading: Reading) -> int:
    return 1 + len(reading.node) + len(reading.values)


def _places(reading: Reading) -> int:
    return cost_of(_pattern(reading)).places


def _check_pattern(reading: Reading, place: Place) -> None:
    cost = cost_of(_pattern(reading))
    if cost.backward:
        where = f"{written(place)}.pattern"
        raise RequestError(400, f"{where} has a repetition whose first number is above the second", where)
    if cost.at_once > MAX_AT_ONCE:
        what = "places at which one text may be, as one part may go on where the next begins (list words in an enum)"
        at_most(cost.at_once, MAX_AT_ONCE, what, f"{written(place)}.pattern")


def _check_loop(references: References, reading: Reading, place: Place) -> None:
    if reading.kind == "reference" and references.resolved(reading) is None:
        raise RequestError(400, f"{written(place)}.$ref refers to itself", f"{written(place)}.$ref")


def _check_recursion(references: References) -> None:
    recursion = Recursion(references)
    for at, reading in references.places:
        if recursion.doubles(reading):
            place = written(at)
            raise RequestError(
                400, f"{place}: two alternatives that contain this schema again may begin alike, so the engine would "
                "follow twice as many at every level; give each a constant of its own as its first required property",
                place,
            )  # fmt: skip
