"""Files of JSON lines that contain their own checksums, so that damage and careless edits are detected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.artifacts import hash_of

_SUM = "sum"
_DIGITS = 16


@dataclass(frozen=True)
class Line:
    """One line of a file.

    Attributes:
        content: the line's object without the checksum; None if it is not a JSON object, or was changed.
        sealed: whether the line contains a checksum.
    """

    content: dict[str, Any] | None
    sealed: bool


def sealed(content: Mapping[str, Any], before: str = "") -> bytes:
    """A line with its checksum.

    Args:
        before: the checksum of the line before, if the order of the lines matters.
    """
    line = {**content, _SUM: checksum(content, before)}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def checksum(content: Mapping[str, Any], before: str = "") -> str:
    return hash_of([before, dict(content)])[:_DIGITS]


def read_lines(path: Path) -> tuple[list[Line], bool]:
    """All lines of a file whose checksums cover only their own lines, and whether the last line is cut short.

    A line counts as unchanged only if writing its content again gives the same bytes.
    """
    if not path.is_file():
        return [], False
    *lines, rest = path.read_bytes().split(b"\n")
    return [read_line(line) for line in lines if line], bool(rest)


def read_line(line: bytes, before: str = "") -> Line:
    """Parses one line without its line end; `before`: see sealed."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return Line(None, False)
    if not isinstance(content, dict):
        return Line(None, False)
    if _SUM not in content:
        return Line(content, False)
    del content[_SUM]
    return Line(content if sealed(content, before) == line + b"\n" else None, True)
