"""A row as flat columns: the same ones for every row of a kind, whatever is in them."""

from __future__ import annotations

import json
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from journeyman.reasons.base import ReasonRecord

Kind = Literal["text", "int", "float", "bool"]
_SENTENCE = "_sentence"
_KINDS: dict[Any, Kind] = {str: "text", int: "int", float: "float", bool: "bool"}


@cache
def columns_of(kind: type[BaseModel]) -> dict[str, Kind]:
    """Column → the type of its values; each may also be None."""
    made: dict[str, Kind] = {}
    for name, field in kind.model_fields.items():
        inner = _without_none(field.annotation)
        made[name] = _KINDS.get(inner, "text")
        if inner is ReasonRecord:
            made[f"{name}{_SENTENCE}"] = "text"
    return made


def flat(row: BaseModel) -> dict[str, Any]:
    """The row's columns. A reason is its code and its sentence; lists, dicts and objects are JSON text."""
    made: dict[str, Any] = {}
    for name, field in type(row).model_fields.items():
        value, inner = getattr(row, name), _without_none(field.annotation)
        if inner is ReasonRecord:
            made[name] = None if value is None else value.code
            made[f"{name}{_SENTENCE}"] = None if value is None else value.sentence()
        elif value is None or inner in _KINDS or isinstance(value, str):
            made[name] = value
        else:
            made[name] = json.dumps(row.model_dump(mode="json", include={name})[name], ensure_ascii=False)
    return made


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [one for one in get_args(annotation) if one is not type(None)]
        return parts[0] if len(parts) == 1 else annotation
    return annotation
