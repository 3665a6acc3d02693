"""Finds the Python source in an answer."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def python_source(text: str) -> str:
    """The fenced Python blocks joined, or all fenced blocks where none is named, or the whole text."""
    blocks = [(match[1].lower(), match[2]) for match in _FENCE.finditer(text)]
    python = [body for language, body in blocks if language in ("python", "py", "python3")]
    return "\n\n".join(python or [body for _, body in blocks] or [text])
