"""Finds fenced blocks and Python source in an answer, in time linear in its length for any content."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LANGUAGE = re.compile(r"[ \t]*+([\w+-]*+)")
_FENCE = "```"


def fenced_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, body) of each fenced block; an unclosed one extends to the end of the text."""
    at = 0
    while (start := text.find(_FENCE, at)) >= 0:
        line_end = text.find("\n", start)
        if line_end < 0:
            return
        found = _LANGUAGE.match(text, start + len(_FENCE), line_end)
        end = text.find("\n" + _FENCE, line_end + 1)
        if end < 0:
            end = len(text)
        yield (found[1].lower() if found else "", text[line_end + 1 : end])
        at = end + 1 + len(_FENCE)


def python_source(text: str) -> str:
    """The fenced Python blocks, joined; without any, all fenced blocks; without those, the whole text."""
    blocks = list(fenced_blocks(text))
    python = [body for language, body in blocks if language in ("python", "py", "python3")]
    return "\n\n".join(python or [body for _, body in blocks] or [text])
