"""Reads what was recorded, the newest first, up to a limit, so that a look at a day does not read a year."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import zstandard
from pydantic import ValidationError

from journeyman.gateway.row_files import lines_now, row_files, row_in
from journeyman.records import Record
from journeyman.routing.conversations import Conversation
from journeyman.routing.exchanges import Exchange

_R = TypeVar("_R", bound=Record)
_BLOCK = 1 << 18
_LONGEST_LINE = 1 << 24
_OLDER_IN_A_ROW = 2_000
"""Lines are written when exchanges end, and the window is about when they began: so many older ones end the search."""


@dataclass
class Reach:
    """How far back something was read.

    Attributes:
        lines: that were read.
        unreadable: lines or files that are damaged, or of another version.
        lost: rows that say that their contents were not or not all recorded.
        complete: False if a limit ended it before the window's beginning.
        oldest: seconds since 1970 of the oldest line in the window; None: there was none.
    """

    lines: int = 0
    unreadable: int = 0
    lost: int = 0
    complete: bool = True
    oldest: float | None = None

    def saw(self, at: float) -> None:
        self.oldest = at if self.oldest is None else min(at, self.oldest)


def seconds_of(time: Any) -> float | None:
    """An ISO 8601 time as seconds since 1970, in UTC unless it says otherwise; None if it is none."""
    if not isinstance(time, str):
        return None
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def newest_lines(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, the last one first, without line ends; none if there is no such file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, os.SEEK_END)
        rest: bytes | None = None  # the end of the file, unless it is a line end, is a line in the making
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            block = file.read(end - start)
            end = start
            if rest is None:
                cut = block.rfind(b"\n")
                if cut < 0:
                    continue
                block, rest = block[:cut], b""
            first, *lines = (block + rest).split(b"\n")
            yield from reversed(lines)
            rest = first if len(first) <= _LONGEST_LINE else b""
        if rest:
            yield rest


def newest_exchanges(path: Path, since: float, until: float, most: int, reach: Reach) -> Iterator[Exchange]:
    """The assessor's exchanges that began in a window, the newest first."""
    for one, at in _newest(path, Exchange, "at", since, most, reach):
        if at < until:
            yield one


def newest_conversations(path: Path, since: float, until: float, most: int, reach: Reach) -> Iterator[Conversation]:
    """The conversations that ended in a window, the newest first."""
    for one, at in _newest(path, Conversation, "ended", since, most, reach):
        if at < until:
            yield one


def _newest(
    path: Path, kind: type[_R], field: str, since: float, most: int, reach: Reach
) -> Iterator[tuple[_R, float]]:
    older = 0
    for line in newest_lines(path):
        if reach.lines >= most:
            reach.complete = False
            return
        reach.lines += 1
        try:
            one = kind.model_validate_json(line)
        except ValidationError:
            reach.unreadable += 1
            continue
        at = seconds_of(getattr(one, field))
        if at is None or at < since:
            older += 1
            if older >= _OLDER_IN_A_ROW:
                return
            continue
        older = 0
        reach.saw(at)
        yield one, at


def newest_rows(
    folder: Path, since: float, until: float, most_bytes: int, reach: Reach
) -> Iterator[tuple[dict[str, Any], float]]:
    """The recorder's rows that began in a window, with their times: the newest file first, in a file the oldest row.

    Args:
        most_bytes: no further file is begun after so many bytes, before compression.
    """
    size = 0
    for path in reversed(row_files(folder)):
        if size >= most_bytes:
            reach.complete = False
            return
        latest = None
        for line in _lines_now(path, reach):
            size += len(line)
            reach.lines += 1
            row = row_in(line)
            at = seconds_of(row.get("time"))
            if at is None:  # a row without contents has no time either, so it is counted wherever it stands
                reach.unreadable += not row
                reach.lost += bool(row.get("lost"))
                continue
            latest = at if latest is None else max(at, latest)
            if since <= at < until:
                reach.saw(at)
                reach.lost += bool(row.get("lost"))
                yield row, at
        if latest is not None and latest < since:
            return


def oldest_rows(folder: Path, until: float, most_bytes: int) -> Iterator[dict[str, Any]]:
    """The recorder's rows from before a time, the oldest first."""
    size = 0
    for path in row_files(folder):
        if size >= most_bytes:
            return
        inside = False
        for line in _lines_now(path, Reach()):
            size += len(line)
            row = row_in(line)
            at = seconds_of(row.get("time"))
            if at is not None and at < until:
                inside = True
                yield row
            if size >= most_bytes:
                return
        if not inside:
            return


def _lines_now(path: Path, reach: Reach) -> Iterator[bytes]:
    """The lines of a file, which may have been compressed since it was listed; of a damaged one, those before."""
    try:
        yield from lines_now(path)
    except (EOFError, FileNotFoundError, zstandard.ZstdError):
        reach.unreadable += 1
