"""Validates single values of a request; errors are RequestErrors that name the field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError

Check = Callable[[Any, str], Any]
_INDEX = re.compile(r"\[\d+\]")


def number(low: float, high: float) -> Check:
    def check(value: Any, param: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise wrong(param, "a number", value)
        if not low <= value <= high:
            raise RequestError(400, f"{param} must be between {low:g} and {high:g}", param)
        return value

    return check


def whole(low: int, high: int) -> Check:
    def check(value: Any, param: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(param, "an integer", value)
        if not low <= value <= high:
            raise RequestError(400, f"{param} must be between {low} and {high}", param)
        return value

    return check


def truth(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(param, "true or false", value)
    return value


def text(most: int, least: int = 1) -> Check:
    def check(value: Any, param: str) -> Any:
        if not isinstance(value, str):
            raise wrong(param, "text", value)
        if not least <= len(value) <= most:
            raise RequestError(400, f"{param} must have {least} to {most} characters, not {len(value)}", param)
        return value

    return check


def objects(value: Any, param: str, most: int, least: int = 1) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise wrong(param, "a list of objects", value)
    if not least <= len(value) <= most:
        raise RequestError(400, f"{param} must have {least} to {most} entries, not {len(value)}", param)
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            raise wrong(f"{param}[{index}]", "an object", one)
    return value


def known(value: Any, param: str, names: Collection[str], ignored: list[str]) -> dict[str, Any]:
    """The fields with these names that are not null; the names of all others are added to `ignored`.

    Raises:
        RequestError: the value is not an object.
    """
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    place = _INDEX.sub("", param)
    for name, inner in value.items():
        if name not in names and inner is not None and (at := f"{place}.{name}") not in ignored:
            ignored.append(at)
    return {name: inner for name, inner in value.items() if name in names and inner is not None}


def one_of(*names: str) -> Check:
    def check(value: Any, param: str) -> str:
        if not isinstance(value, str) or value not in names:
            shown = plain(value, 40) if isinstance(value, str) else "another type"
            raise RequestError(400, f"{param} must be one of {', '.join(names)}, not {shown}", param)
        return value

    return check


def wrong(param: str, wanted: str, value: Any) -> RequestError:
    """The error for a value of the wrong type."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return RequestError(400, f"{param} must be {wanted}, not {names.get(type(value), 'a number')}", param)
