"""Counts a ledger: is there a row for every number that a request was given?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from journeyman.checksum_lines import read_line
from journeyman.gateway import journal
from journeyman.gateway.row_files import lines_now, numbers_of, row_files

_MOST_NAMED = 20


@dataclass
class Count:
    """A ledger, counted.

    Attributes:
        requests: numbers that were given; each belongs to one request.
        rows: by outcome.
        answers: rows with an answer, or a part of one.
        open: exchanges in the journal without a row: in progress, or waiting to be written.
        missing: numbers that have neither.
        double: numbers with several rows.
        damaged: lines that were changed or are no rows, as file:line.
        lost: rows that say that their contents were not or not all recorded.
    """

    requests: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    open: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    double: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    lost: int = 0
    bytes: int = 0

    @property
    def difference(self) -> int:
        """Requests without a row, rows without a request and rows that cannot be read; exchanges in progress apart."""
        return len(self.missing) + len(self.double) + len(self.damaged)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests, "rows": sum(self.rows.values()), "answers": self.answers,
            "outcomes": dict(sorted(self.rows.items())), "open": len(self.open), "lost": self.lost,
            "difference": self.difference, "missing": self.missing, "double": self.double, "damaged": self.damaged,
        }  # fmt: skip


def count(folder: Path, asked_journal: str = "") -> Count:
    """Reads every row. It may be called while a recorder is at work.

    Args:
        asked_journal: record.journal.

    Raises:
        OSError: a file cannot be read.
    """
    found = _counted(folder, asked_journal)
    if found.missing:  # or it began after the journal was listed, and a later row already names its number
        again = _counted(folder, asked_journal)
        before = set(found.missing)
        again.missing = [number for number in again.missing if number in before]
        return again
    return found


def _counted(folder: Path, asked_journal: str) -> Count:
    found, seen = Count(), bytearray()
    # The journal first: what has ended in the meantime is then found as a row.
    waiting = journal.numbers(journal.place_of(folder, asked_journal).folder)
    for path in row_files(folder):
        try:
            for number, line in enumerate(lines_now(path), start=1):
                _take(found, seen, line, f"{path.name}:{number}")
        except (EOFError, zstandard.ZstdError, FileNotFoundError) as error:
            found.damaged.append(f"{path.name}: {error}")
    found.open = [number for number in waiting if number >= len(seen) or not seen[number]]
    found.requests = max([found.requests, *waiting])
    known = set(found.open)
    found.missing = [
        number
        for number in range(1, found.requests + 1)
        if number not in known and (number >= len(seen) or not seen[number])
    ]
    found.double = [number for number, times in enumerate(seen) if times > 1]
    return found


def _take(found: Count, seen: bytearray, line: bytes, place: str) -> None:
    numbers = numbers_of(line)
    told = read_line(line[:-1])
    content = told.content
    if numbers is None or content is None or not told.sealed:
        found.damaged.append(place)
        return
    number, assigned, outcome = numbers
    if number >= len(seen):
        seen.extend(bytes(number + 1 - len(seen)))
    seen[number] = min(2, seen[number] + 1)
    found.requests = max(found.requests, assigned, number)
    found.rows[outcome] += 1
    found.bytes += len(line)
    found.answers += bool(content.get("status"))
    found.lost += bool(content.get("lost"))


def named(numbers: list[int]) -> str:
    """Numbers as text, at most a few of them."""
    told = ", ".join(map(str, numbers[:_MOST_NAMED]))
    return told + (f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else "")
