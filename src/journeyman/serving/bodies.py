"""Parses the bytes of a request into JSON that is safe to process: shallow, with finite numbers and valid text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from journeyman.serving.errors import RequestError

MAX_DEPTH = 64

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WORTH_A_LOOK = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{19}|[eE][+-]?[0-9]{3}|NaN|Infinity")


def parsed(data: bytes, param: str | None = None) -> Any:
    """The JSON value in `data`, which is the body or, with `param`, the text of that field.

    Raises:
        RequestError: not UTF-8, not JSON, nested deeper than MAX_DEPTH (counted before parsing), a lone surrogate, NaN,
            Infinity, or a number that does not fit in 64 bits.
    """
    what = param or "the body"
    if _depth(data) > MAX_DEPTH:
        raise RequestError(400, f"{what} is nested more than {MAX_DEPTH} levels deep", param)
    odd = _WORTH_A_LOOK.search(data) is not None
    hooks: dict[str, Any] = {"parse_int": _whole} if odd else {}
    try:
        value = json.loads(data.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"{what} is not JSON: {error}", param) from error
    if odd and (found := _odd_value(value, param or "")):
        raise RequestError(400, f"{found[0] or what} {found[1]}", found[0] or None)
    return value


def _depth(data: bytes) -> int:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    chars = np.frombuffer(_STRINGS.sub(b"", data), dtype=np.uint8)
    opens = ((chars == ord("[")) | (chars == ord("{"))).astype(np.int8)
    closes = ((chars == ord("]")) | (chars == ord("}"))).astype(np.int8)
    return int(np.cumsum(opens - closes, dtype=np.int32).max(initial=0))


def _whole(digits: str) -> float:
    """The number, or infinity if it does not fit in 64 bits: converting thousands of digits would be slow."""
    value = int(digits) if len(digits) <= 20 else math.inf
    return value if -(1 << 63) <= value < 1 << 64 else math.inf


def _odd_value(value: Any, place: str) -> tuple[str, str] | None:
    """The first value that is not a finite number or not valid text, as (place, problem)."""
    if isinstance(value, float) and not math.isfinite(value):
        return place, "is not a finite 64-bit number"
    if isinstance(value, str):
        return (place, "contains a lone surrogate, which is not a character") if _has_surrogate(value) else None
    if isinstance(value, list):
        inner = ((f"{place}[{index}]", one) for index, one in enumerate(value))
    elif isinstance(value, dict):
        if any(map(_has_surrogate, value)):
            return place, "contains a name with a lone surrogate, which is not a character"
        inner = ((f"{place}.{key}" if place else key, one) for key, one in value.items())
    else:
        return None
    return next((found for name, one in inner if (found := _odd_value(one, name))), None)


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)
