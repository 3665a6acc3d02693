"""A file that is one session, as one row: its parsed lines, and the damaged ones separately."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from journeyman.sources.fields import NotAnInteraction, without
from journeyman.sources.rows import Row, parse_line


class Line(NamedTuple):
    """A line of a session that is a JSON object."""

    number: int
    value: dict[str, Any]


class Session(dict[str, Any]):
    """A session, as input for its format. As a mapping it contains metadata of the session: cwd, version, agent.

    Attributes:
        format: the name of its format.
        lines: the lines that are JSON objects, in order.
        damaged: rejections of all other lines.
    """

    def __init__(self, format_: str, lines: list[Line], damaged: list[NotAnInteraction], about: dict[str, Any]) -> None:
        super().__init__(about)
        self.format, self.lines, self.damaged = format_, lines, damaged

    def beginning(self, number: int) -> str:
        """The beginning of a line, for the report of rejected rows."""
        found = next((line.value for line in self.lines if line.number == number), {})
        return json.dumps(found, ensure_ascii=False)[:200].encode("utf-8", "replace").decode()


def parsed_session(row: Row) -> Row:
    """The row with a Session as its value."""
    assert row.raw is not None and row.session is not None
    lines: list[Line] = []
    damaged: list[NotAnInteraction] = []
    for one in _rows(row):
        if one.problem is not None:
            damaged.append(NotAnInteraction(one.problem, one.line, one.text))
        elif one.value is not None:
            lines.append(Line(one.line, one.value))
    about = {**_names(lines), **row.about}
    session = Session(row.session, lines, damaged, about)
    return dataclasses.replace(row, value=session, raw=None)


def _rows(row: Row) -> Iterator[Row]:
    raw = row.raw or b""
    if raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        for number, line in enumerate(raw.split(b"\n"), start=1):
            if line.strip():
                yield parse_line(line, number)
        return
    whole = parse_line(b'{"list":' + raw.removeprefix(b"\xef\xbb\xbf") + b"}", 1)
    if whole.value is None:
        yield dataclasses.replace(whole, text=row.text)
        return
    for number, value in enumerate(whole.value["list"], start=1):
        yield parse_line(json.dumps(value).encode(), number)


def _names(lines: list[Line]) -> dict[str, Any]:
    """Metadata of the session from its first lines, for data.role_field."""
    for line in lines[:50]:
        payload = line.value.get("payload")
        if line.value.get("type") == "session_meta" and isinstance(payload, dict):
            return without(payload, "base_instructions", "instructions")
        if "parentUuid" in line.value:
            return without(line.value, "message", "toolUseResult", "uuid", "parentUuid", "type")
    return {}
