"""Counts and durations of what ingest read, by role, teacher and reason.

Workers make columns of their rows, so that the process that adds them up spends little time on each row. The order of
the rows matters: of many durations a sample is kept, and of many kinds of reasons the first ones.
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.artifacts import read_rows
from journeyman.manifests import CountedReason, Durations, IngestManifest, LogGroup
from journeyman.reasons import Detail, ReasonRecord, Text
from journeyman.records import Interaction, Rejected
from journeyman.stats.describe import mean, median, percentile

MOST_REASONS = 100
_RESERVOIR = 200_000
_ROWS_AT_A_TIME = 2_000
_UNKNOWN = 2

_NoteKey = tuple[str, tuple[tuple[str, Detail], ...]]
"""Code and details of a note."""


@dataclass
class Seen:
    """What the tally needs of some records.

    Attributes:
        roles, teachers: of each row that was kept.
        succeeded: of each row that was kept: 1, 0, or 2 if it is not known.
        seconds: the duration of each row that was kept, or NaN.
        reasons: key of a reason → rows that were rejected for it, in the order in which they appear.
        rejected_by: the same by code.
        notes: note → rows that were kept, in the order in which they appear.
    """

    roles: list[str] = field(default_factory=list)
    teachers: list[str] = field(default_factory=list)
    succeeded: bytearray = field(default_factory=bytearray)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    redacted: Counter[str] = field(default_factory=Counter)
    notes: Counter[_NoteKey] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rejected_by: Counter[str] = field(default_factory=Counter)

    def add(self, record: Interaction | Rejected) -> None:
        if isinstance(record, Rejected):
            self.reasons[key_of(record.reason)] += 1
            self.rejected_by[record.reason.code] += 1
            return
        self.roles.append(record.role)
        self.teachers.append(record.teacher)
        self.succeeded.append(_UNKNOWN if record.succeeded is None else record.succeeded)
        self.seconds.append(np.nan if record.duration_ms is None else record.duration_ms / 1000)
        for kind, count in record.redacted.items() if record.redacted else ():
            self.redacted[kind] += count
        for note in record.notes:
            self.notes[note.code, tuple(note.details.items())] += 1


class _Group:
    """Counts and durations of one role or teacher; of more than 200,000 durations, a uniform sample is kept."""

    def __init__(self) -> None:
        self.rows = self.successes = self.failures = self.n = 0
        self.sum_s = 0.0
        self.sample_s = array("d")
        self._random = random.Random(0)

    def add(self, succeeded: NDArray[np.uint8], seconds: NDArray[np.float64]) -> None:
        """Rows in their order; durations of failures do not count."""
        self.rows += len(succeeded)
        self.successes += int((succeeded == 1).sum())
        self.failures += int((succeeded == 0).sum())
        for one in seconds[(succeeded != 0) & ~np.isnan(seconds)].tolist():
            self.n += 1
            self.sum_s += one
            if len(self.sample_s) < _RESERVOIR:
                self.sample_s.append(one)
            elif (place := self._random.randrange(self.n)) < _RESERVOIR:
                self.sample_s[place] = one

    def manifest(self) -> LogGroup:
        sample = list(self.sample_s)
        average = mean(sample) if self.n == len(sample) else self.sum_s / self.n
        durations = Durations(n=self.n, mean_s=average, median_s=median(sample), p95_s=percentile(sample, 0.95))
        return LogGroup(rows=self.rows, successes=self.successes, failures=self.failures, durations=durations)


class Tally:
    def __init__(self) -> None:
        self.total = _Group()
        self.by_role: dict[str, _Group] = defaultdict(_Group)
        self.by_teacher: dict[str, _Group] = defaultdict(_Group)
        self.redacted: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rejected_by: Counter[str] = Counter()
        self.notes: Counter[_NoteKey] = Counter()
        self.rejected = 0

    def add(self, seen: Seen) -> None:
        succeeded, seconds = np.frombuffer(seen.succeeded, np.uint8), np.array(seen.seconds)
        self.total.add(succeeded, seconds)
        for groups, names in ((self.by_role, seen.roles), (self.by_teacher, seen.teachers)):
            for name, places in _places(names):
                groups[name].add(succeeded[places], seconds[places])
        self.redacted.update(seen.redacted)
        self.rejected += seen.rejected_by.total()
        self.rejected_by.update(seen.rejected_by)
        _add_first(self.reasons, seen.reasons)
        _add_first(self.notes, seen.notes)

    @property
    def refused(self) -> dict[str, Any]:
        """The counts that a commit must save, because not all rejected rows are stored."""
        return {"rejected": self.rejected, "reasons": self.reasons, "rejected_by": self.rejected_by}

    def first_reasons(self) -> str:
        return "".join(f"; {one.rows} × {one.sentence()}" for one in self._reasons(2))

    def _reasons(self, most: int) -> list[CountedReason]:
        found = ((reason_of(key), rows) for key, rows in self.reasons.most_common(most))
        return [CountedReason(code=one.code, details=one.details, rows=rows) for one, rows in found]

    def manifest(self, read: int, skipped: dict[str, int]) -> IngestManifest:
        return IngestManifest(
            read=read,
            skipped=skipped,
            kept=self.total.rows,
            rejected=self.rejected,
            rejected_by=dict(self.rejected_by.most_common()),
            reasons=self._reasons(20),
            notes=[
                CountedReason(code=code, details=dict(details), rows=rows)
                for (code, details), rows in self.notes.most_common(20)
            ],
            redacted=dict(self.redacted.most_common()),
            total=self.total.manifest(),
            by_role={role: group.manifest() for role, group in sorted(self.by_role.items())},
            by_teacher={teacher: group.manifest() for teacher, group in sorted(self.by_teacher.items())},
        )


def _places(names: list[str]) -> Iterator[tuple[str, NDArray[np.intp] | slice]]:
    """Each name, and the places where it stands."""
    known = dict.fromkeys(names)
    if len(known) == 1:
        yield names[0], slice(None)
        return
    numbers = {name: number for number, name in enumerate(known)}
    codes = np.array([numbers[name] for name in names])
    for name, number in numbers.items():
        yield name, np.flatnonzero(codes == number)


def _add_first(counts: Counter[Any], more: Mapping[Any, int]) -> None:
    """Adds counts of the first MOST_REASONS keys that ever appear."""
    for key, rows in more.items():
        if key in counts or len(counts) < MOST_REASONS:
            counts[key] += rows


def restored(rows: Path, state: Mapping[str, Any]) -> Tally:
    """The tally of what an interrupted run has already stored."""
    tally = Tally()
    stored = read_rows(rows, Interaction)
    while some := list(islice(stored, _ROWS_AT_A_TIME)):
        seen = Seen()
        for row in some:
            seen.add(row)
        tally.add(seen)
    tally.rejected, tally.reasons = state["rejected"], Counter(state["reasons"])
    older = Counter({Text.code: tally.rejected})  # whose reasons had no codes
    tally.rejected_by = Counter(state["rejected_by"]) if "rejected_by" in state else older
    return tally


def key_of(reason: ReasonRecord) -> str:
    """The key by which reasons are counted: code and details, without the position in the row or file."""
    details = {name: value for name, value in reason.details.items() if name != "at"}
    return json.dumps([reason.code, details], ensure_ascii=False)


def reason_of(key: str) -> ReasonRecord:
    """The reason of a key; in a run that an older version started, keys are sentences."""
    try:
        code, details = json.loads(key)
        return ReasonRecord(code=code, details=details)
    except ValueError:
        return Text(key).record()
