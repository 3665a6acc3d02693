"""One regular expression for thousands of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of the texts that begins at a place.

    Common beginnings are written once: Python tries the alternatives of an expression one after the other, and Gemma
    has 6,400 special tokens, a space among them.
    """
    known = sorted(set(texts) - {""})
    try:
        return re.compile(_branches(known) or r"(?!)")
    except RecursionError:  # hundreds of texts, each the beginning of the next one
        return re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))))


def _branches(texts: list[str]) -> str:
    """An expression for sorted texts of which none is empty."""
    alternatives = []
    start = 0
    while start < len(texts):
        end = start + 1
        while end < len(texts) and texts[end][0] == texts[start][0]:
            end += 1
        # Sorted, so what the first and the last one share is shared by all.
        shared, first, last = 1, texts[start], texts[end - 1]
        while shared < min(len(first), len(last)) and first[shared] == last[shared]:
            shared += 1
        rest = [text[shared:] for text in texts[start:end]]
        ends = not rest[0]
        following = _branches(rest[1:] if ends else rest)
        optional = f"(?:{following})?" if following else ""
        alternatives.append(re.escape(first[:shared]) + (optional if ends else f"(?:{following})"))
        start = end
    return "|".join(alternatives)
