"""Marks where two answers differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from markupsafe import Markup, escape

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 4000  # comparing longer texts takes seconds


Part = tuple[bool, str]
"""Whether the other text does not have it, and the text."""


def parts_of(one: str, other: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts; texts that are too long to be compared are one part each."""
    left, right = _WORDS.findall(one), _WORDS.findall(other)
    if max(len(left), len(right)) > _MOST_WORDS:
        return [(False, one)], [(False, other)]
    first: list[Part] = []
    second: list[Part] = []
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for parts, words in ((first, left[a:b]), (second, right[c:d])):
            if words:
                parts.append((kind != "equal", "".join(words)))
    return first, second


def marked_pair(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts, escaped: <del> marks what only the first one has, <ins> what only the second one has."""
    first, second = parts_of(one, other)
    return _marked(first, Markup("<del>{}</del>")), _marked(second, Markup("<ins>{}</ins>"))


def _marked(parts: Sequence[Part], mark: Markup) -> Markup:
    return Markup("").join(mark.format(text) if marked else escape(text) for marked, text in parts)
