"""Validates every file that a row or an answer names; names with a special meaning are refused.

Checks keep such files in memory; any code that writes one to a folder must validate its name here first.
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
    """A refused file name or size; the message says which and why."""


def row_files(value: Any) -> dict[str, str]:
    """The `files` of a row's check: path → content.

    Raises:
        BadFile: not an object of texts, a refused name, a file inside another file, or too much data.
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(text, str) for text in value.values()):
        raise BadFile("not an object of file names and texts")
    if len(value) > MOST_FILES:
        raise BadFile(f"{len(value)} files, at most {MOST_FILES}")
    files = {file_name(name): text for name, text in value.items()}
    if len(files) < len(value):
        raise BadFile("two names for the same file")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in files.values())
    if size > MOST_BYTES:
        raise BadFile(f"{size:,} bytes, at most {MOST_BYTES:,}")
    if any("\ud800" <= char <= "\udfff" for text in files.values() if not text.isascii() for char in text):
        raise BadFile("a text contains half a character (a lone surrogate)")
    if inside := nested(files):
        raise BadFile(inside)
    return files


def nested(names: Iterable[str]) -> str | None:
    """Which file's path runs through another file; None if all of them can exist at once."""
    known = set(names)
    for name in known:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (outer := "/".join(parts[:depth])) in known:
                return f"{plain(name, 80)} is inside the file {plain(outer, 80)}"
    return None


def file_name(name: Any) -> str:
    """Validates and returns a relative path with / as separator that is safe within a folder of its own.

    Raises:
        BadFile: the name is absolute, leads upwards, is empty, belongs to git (.git…), or contains characters that no
            file name should contain.
    """
    if not isinstance(name, str) or not name:
        raise BadFile("an empty file name")
    shown = plain(name, 80)
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in name) or "\\" in name or ":" in name:
        raise BadFile(f"the file name {shown!r} contains control characters, a backslash or a colon")
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise BadFile(f"the file name {shown!r} is absolute, leads upwards, or has an empty part")
    # Other file systems also accept .git with trailing dots or spaces, and as git~1.
    if any(part.rstrip(". ").lower().startswith((".git", "git~")) for part in parts):
        raise BadFile(f"the file name {shown!r} belongs to git")
    if any(len(part.encode()) > _MOST_NAME_BYTES for part in parts) or len(parts) > 32:
        raise BadFile(f"the file name {shown!r} is too long or nested too deeply")
    return name
