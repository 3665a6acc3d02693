"""Whether an answer near its limit of tokens was cut there."""

from __future__ import annotations

import ast
import json
import re

from journeyman.reasons import Reason
from journeyman.reasons import curation as why

_ENDED = (".", "!", "?", ":", ")", "]", "}", "`", '"', "'", "|", ">", "*", ";", "…", "”")


def stops_near_limit(text: str, tokens: int, limit: int) -> Reason | None:
    """Why an answer of about as many tokens as the limit looks cut; None where it seems to have ended by itself."""
    if not text.endswith(_ENDED):
        return why.UnendedSentence(tokens, limit)
    block = _last_code(text)
    if block is not None and not _parses(*block):
        return why.UnparsedCode(tokens, limit)
    if tokens > limit * 1.02:
        return why.OverLimit(tokens, limit)
    return None


def _last_code(text: str) -> tuple[str, str] | None:
    """Language and text of what the answer ends with, if that is code."""
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
