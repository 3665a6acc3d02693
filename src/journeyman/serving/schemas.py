"""Bounds of the JSON schemas in a request: the engine turns each into a grammar, and its time grows with the square.

Measured with the engine of xllamacpp on one core: 200 values of an enum 0.8 s, 500 1.2 s, 1,000 3.2 s, 2,000 9.2 s.
"""

from __future__ import annotations

import json
from typing import Any

from journeyman.serving.errors import RequestError

MAX_BYTES = 128 << 10
MAX_CHOICES = 500
MAX_PATTERN = 1000
MAX_COUNT = 1000

_CHOICES = ("enum", "anyOf", "oneOf", "allOf", "type", "prefixItems")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def check_schemas(schemas: list[tuple[str, Any]]) -> None:
    """Refuses schemas that are together more than a grammar can be made of in about a second.

    Args:
        schemas: (field, schema) of everything that one request hands to the engine as a schema.

    Raises:
        RequestError: names the field and the bound.
    """
    choices = pattern = size = 0
    for param, schema in schemas:
        if not isinstance(schema, dict):
            raise RequestError(400, f"{param} must be an object, a JSON schema", param)
        size += len(json.dumps(schema))
        _bounded(param, "bytes of JSON schema", size, MAX_BYTES)
        for place, node in _objects(schema, param):
            choices += sum(len(node[key]) for key in _CHOICES if isinstance(node.get(key), list))
            _bounded(param, "alternatives (values of enum, anyOf, oneOf, allOf)", choices, MAX_CHOICES)
            pattern += len(node["pattern"]) if isinstance(node.get("pattern"), str) else 0
            _bounded(param, "characters of patterns", pattern, MAX_PATTERN)
            _check_counts(node, place)


def _check_counts(node: dict[str, Any], place: str) -> None:
    for key in _COUNTS:
        # A property may be called maxItems: then it is a schema.
        value = node.get(key)
        if isinstance(value, int | float) and not 0 <= value <= MAX_COUNT:
            raise RequestError(400, f"{place}.{key} must lie between 0 and {MAX_COUNT}", f"{place}.{key}")


def _bounded(param: str, what: str, count: int, most: int) -> None:
    if count > most:
        raise RequestError(400, f"{param}: more than {most:,} {what} in the schemas of one request", param)


def _objects(value: Any, place: str) -> list[tuple[str, dict[str, Any]]]:
    found, waiting = [], [(place, value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            found.append((place, value))
            waiting += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{index}]", inner) for index, inner in enumerate(value)]
    return found
