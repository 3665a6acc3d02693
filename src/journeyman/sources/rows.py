"""A row of any kind of file: a JSON object, or the reason why there is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from journeyman.reasons import files as why
from journeyman.sources.fields import kind

MAX_ROW_BYTES = 16 << 20
MAX_DEPTH = 64
NO_NUMBER = "a number too long, NaN or Infinity"
"""The cases for which the decoder raises a bare ValueError."""
_UNDECODED = re.compile("[\udc80-\udcff]")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_number)


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        line: number of the line, or of the element in a document, from 1.
        value: the JSON object, or None.
        problem: why there is no object; None if there is one, or if the line is not parsed yet.
        text: the row's beginning, for the report of rejected rows.
        raw: an unparsed line, or a session's whole file: reading is serial, but parsing need not be.
        member: the file within an archive.
        session: the format of the session if the row is one (sources/sessions.py), else None.
        about: metadata from files next to a session's file.
    """

    line: int
    value: dict[str, Any] | None
    problem: why.SourceReason | None
    text: str
    raw: bytes | None = None
    member: str = ""
    session: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def parsed(self) -> Row:
        if self.raw is None:
            return self
        made = parse_line(self.raw, self.line)
        return replace(made, member=self.member) if self.member else made

    def packed(self) -> Packed:
        """For another process: of an unparsed line only its number and bytes, which take far less time to pickle."""
        bare = self.value is None and self.problem is None and self.session is None and not self.member
        return (self.line, self.raw) if bare and self.raw is not None else self

    @staticmethod
    def unpacked(packed: Packed) -> Row:
        return packed if isinstance(packed, Row) else Row(packed[0], None, None, "", packed[1])


Packed = Row | tuple[int, bytes]


def parse_line(line: bytes, number: int) -> Row:
    """Parses a line of JSON into a row."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return refused(number, why.NotUtf8(error.start), line)
    return parse_text(text.removeprefix("\x1e"), number)  # precedes each text of a JSON text sequence (RFC 7464)


def parse_text(text: str, number: int) -> Row:
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        return refused(number, why.NotJson(error.msg, error.colno), text)
    except RecursionError:
        return refused(number, why.NestedTooDeeply(MAX_DEPTH), text)
    except ValueError:
        return refused(number, why.NotJson(NO_NUMBER), text)
    return checked(value, number, text)


def checked(value: Any, number: int, text: str) -> Row:
    """Makes a row of the value if it is a usable object, else a row that says why not."""
    if not isinstance(value, dict):
        return refused(number, why.NotAnObject(kind(value)), text)
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        return refused(number, why.NestedTooDeeply(MAX_DEPTH), text)
    if not text.isascii() and _UNDECODED.search(text):
        return refused(number, why.NotUtf8(), text)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return refused(number, why.HalfSurrogate(), text)
    return Row(number, value, None, text[:200])


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def refused(number: int, problem: why.SourceReason, text: bytes | str) -> Row:
    shown = text[:400].decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    return Row(number, None, problem, shown[:200].encode("utf-8", "replace").decode().rstrip())
