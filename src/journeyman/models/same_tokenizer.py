"""Compares the vocabularies of two files, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from journeyman.foreign import plain
from journeyman.models.base import TokenizerData

_UNUSED = 5
_OF_TOKENS = ("tokens", "types", "scores")
"""One entry for each token; compared without those that pad a vocabulary to the size of the embedding."""
_IGNORED = ("chat_template", "model_name", "more_end_ids")
"""The template that was trained is passed to the engine; a converted file has no name and not all ends of an answer."""


def padded_from(data: TokenizerData) -> int:
    """How many tokens there are before those that only pad the vocabulary."""
    tokens, types = data.tokens or (), data.types or ()
    count = len(tokens)
    while count and count <= len(types) and _is_padding(tokens[count - 1], types[count - 1]):
        count -= 1
    return count


def _is_padding(token: str, kind: int) -> bool:
    return kind == _UNUSED or (token.startswith("[PAD") and token.endswith("]"))


def different_token(one: TokenizerData, other: TokenizerData) -> str | None:
    """The first difference between two vocabularies, as a part of a sentence; None if there is none."""
    used = max(padded_from(one), padded_from(other))
    for field in fields(TokenizerData):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name in _OF_TOKENS:
            first, second = (None if value is None else list(value)[:used] for value in (first, second))
        if field.name not in _IGNORED and not _equal(first, second):
            return _described(field.name, first, second)
    return None


def _equal(one: Any, other: Any) -> bool:
    """Equal, numbers up to the rounding to single precision."""
    if one == other:
        return True
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return False


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _described(name: str, one: Any, other: Any) -> str:
    if _is_list(one) and _is_list(other):
        at = next((n for n, pair in enumerate(zip(one, other, strict=False)) if not _equal(*pair)), None)
        if at is not None:
            return f"{name}[{at}] is {_shown(other[at])}, not {_shown(one[at])}"
        return f"{len(other):,} {name}, not {len(one):,}"
    return f"{name} is {_shown(other)}, not {_shown(one)}"


def _shown(value: Any) -> str:
    return f"{len(value):,} entries" if _is_list(value) else plain(repr(value), 60)
