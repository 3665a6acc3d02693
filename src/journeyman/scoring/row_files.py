"""The one door for files that a row or an answer names: nothing with a name that means something leaves it.

Checks hold such files in memory; where one is ever written to a folder, its name has passed here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from journeyman.foreign import plain

MOST_FILES = 1_000
MOST_BYTES = 4 << 20
_MOST_NAME_BYTES = 255


class BadFile(ValueError):
    """A name or a size that is refused; the message says which and why."""


def row_files(value: Any) -> dict[str, str]:
    """The `files` of a row's check: path → content.

    Raises:
        BadFile: not an object of texts, a refused name, one file inside another, or too much of it.
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(text, str) for text in value.values()):
        raise BadFile("not an object of file names and texts")
    if len(value) > MOST_FILES:
        raise BadFile(f"{len(value)} files, at most {MOST_FILES}")
    files = {file_name(name): text for name, text in value.items()}
    if len(files) < len(value):
        raise BadFile("two names of one file")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in files.values())
    if size > MOST_BYTES:
        raise BadFile(f"{size:,} bytes, at most {MOST_BYTES:,}")
    if any("\ud800" <= sign <= "\udfff" for text in files.values() if not text.isascii() for sign in text):
        raise BadFile("a text holds half a character (a surrogate)")
    if inside := nested(files):
        raise BadFile(inside)
    return files


def nested(names: Iterable[str]) -> str | None:
    """Which file lies inside another one; None where all can stand side by side."""
    known = set(names)
    for name in known:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (outer := "/".join(parts[:depth])) in known:
                return f"{plain(name, 80)} lies inside the file {plain(outer, 80)}"
    return None


def file_name(name: Any) -> str:
    """A relative path with / between its parts, as it may stand in a folder of its own.

    Raises:
        BadFile: absolute, upward, empty, of git's own (.git…), or with signs that no file name should hold.
    """
    if not isinstance(name, str) or not name:
        raise BadFile("an empty file name")
    shown = plain(name, 80)
    if any(unicodedata.category(sign) in ("Cc", "Cf", "Cs") for sign in name) or "\\" in name or ":" in name:
        raise BadFile(f"the file name {shown!r} holds control characters, a backslash or a colon")
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise BadFile(f"the file name {shown!r} is absolute, goes upwards, or has an empty part")
    # Trailing dots and spaces, and ~1, are how other file systems spell .git.
    if any(part.rstrip(". ").lower().startswith((".git", "git~")) for part in parts):
        raise BadFile(f"the file name {shown!r} belongs to git")
    if any(len(part.encode()) > _MOST_NAME_BYTES for part in parts) or len(parts) > 32:
        raise BadFile(f"the file name {shown!r} is too long or too deep")
    return name
