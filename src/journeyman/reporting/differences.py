"""Where two answers differ, word by word, marked for the page."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 4000  # beyond, comparing takes seconds


def marked_pair(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts, escaped: what stands in the first alone as <del>, what stands in the second alone as <ins>."""
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
