"""Marks where two answers differ, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 4000  # comparing longer texts takes seconds


def marked_pair(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts, escaped: <del> marks what only the first one has, <ins> what only the second one has."""
    left, right = _WORDS.findall(one), _WORDS.findall(other)
    if max(len(left), len(right)) > _MOST_WORDS:
        return escape(one), escape(other)
    first, second = Markup(), Markup()
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        here, there = escape("".join(left[a:b])), escape("".join(right[c:d]))
        if kind == "equal":
            first, second = first + here, second + there
            continue
        first += Markup("<del>{}</del>").format(here) if here else ""
        second += Markup("<ins>{}</ins>").format(there) if there else ""
    return first, second
