"""Decides whether an answer near its token limit was truncated."""

from __future__ import annotations

import ast
import json
import re

from journeyman.reasons import Reason
from journeyman.reasons import curation as why

_ENDED = (".", "!", "?", ":", ")", "]", "}", "`", '"', "'", "|", ">", "*", ";", "…", "”")


def stops_near_limit(text: str, tokens: int, limit: int) -> Reason | None:
    """Says why an answer near its token limit looks truncated; None if it seems to have ended on its own."""
    if not text.endswith(_ENDED):
        return why.UnendedSentence(tokens, limit)
    block = _last_code(text)
    if block is not None and not _parses(*block):
        return why.UnparsedCode(tokens, limit)
    if tokens > limit * 1.02:
        return why.OverLimit(tokens, limit)
    return None


def _last_code(text: str) -> tuple[str, str] | None:
    """Language and text of the code that the answer ends with, if any."""
    found = re.search(r"```(\w*)[^\n]*\n(.*?)\n?[ \t]*```$", text, re.DOTALL)
    if found:
        blocks = re.findall(r"```(\w*)[^\n]*\n(.*?)\n?[ \t]*```", text, re.DOTALL)
        return (blocks[-1][0].lower(), blocks[-1][1]) if blocks else None
    last = text.rsplit("\n", 1)[-1]
    if text[:1] in ("{", "["):
        return "json", text
    # Code without a fence: an indented or bracketed last line is a statement, not a sentence.
    return ("cut", last) if last[:1] in (" ", "\t") and last.rstrip()[-1:] in ("{", "(", "[", ":", ",") else None


def _parses(language: str, code: str) -> bool:
    try:
        if language in ("python", "py"):
            ast.parse(code)
        elif language == "json":
            json.loads(code)
        elif language == "cut":
            return False
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
