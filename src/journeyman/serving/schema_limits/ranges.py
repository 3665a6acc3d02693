"""Bounds in a schema: the engine writes counts out, and never ends if it is to write fewer than none."""

from __future__ import annotations

from typing import Any

from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.reading import Node, Reading
from journeyman.serving.schema_limits.references import Place, written

MAX_COUNT = 1000
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_RANGES = (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_ONE_SIDED = 10**15
"""The engine allows 15 digits after the first if an integer has no bound at the other end, and a bound beyond that
makes it count from more digits down to fewer, without end."""


def has_range(reading: Reading) -> bool:
    return reading.kind == "integer" and any(_is_number(reading.node.get(key)) for two in _RANGES for key in two[:2])


def check_bounds(reading: Reading, place: Place) -> None:
    """Raises a RequestError for counts that are too high, and for bounds that contradict each other."""
    node = reading.node
    for key in _COUNTS:
        value: Any = node.get(key)
        if _is_number(value) and not 0 <= value <= MAX_COUNT:
            where = f"{written(place)}.{key}"
            raise RequestError(400, f"{where} must be between 0 and {MAX_COUNT}", where)
    for least, most in zip(_COUNTS[::2], _COUNTS[1::2], strict=True):
        if _is_number(node.get(least)) and _is_number(node.get(most)) and node[least] > node[most]:
            raise _contradiction(place, least, most)
    if has_range(reading):
        _check_range(node, place)


def _check_range(node: Node, place: Place) -> None:
    ends: list[int | None] = []
    for plain, exclusive, step in _RANGES:
        value = node[plain] if plain in node else node.get(exclusive)
        if value is not None and not (_is_number(value) and _LEAST <= value <= _MOST):
            where = f"{written(place)}.{plain if plain in node else exclusive}"
            raise RequestError(400, f"{where} must be a number of at most 63 bits", where)
        bound = None if value is None else int(value) + (0 if plain in node else step)
        ends.append(None if bound in (_LEAST, _MOST) else bound)
    low, high = ends
    if low is not None and high is not None and low > high:
        raise _contradiction(place, "the lower bound", "the upper bound")
    if (high is None and low is not None and low >= _ONE_SIDED) or (
        low is None and high is not None and high <= -_ONE_SIDED
    ):
        where = written(place)
        raise RequestError(400, f"{where}: a bound of more than 15 digits needs another one at the other end", where)


def _contradiction(place: Place, least: str, most: str) -> RequestError:
    return RequestError(400, f"{written(place)}: {least} is above {most}", written(place))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
