"""Summarizes a sample of logs: formats, roles, teachers, lengths, and why rows are rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman import reasoning
from journeyman.config import DataConfig
from journeyman.foreign import plain
from journeyman.reasons.files import BatchRequestJoined
from journeyman.records import Interaction, Rejected
from journeyman.sources.reader import Reader
from journeyman.sources.rows import Row
from journeyman.sources.sample import Sample
from journeyman.sources.unknown import inner_rows

UNKNOWN, UNREADABLE = "unknown", "unreadable"
_MOST_OF_A_ROW = 60
"""Maximum number of answers that are examined per row (a session, for example), spread evenly over it."""


@dataclass
class Survey:
    """Counts over the sampled rows.

    Attributes:
        formats: name → rows; UNKNOWN are objects that match no format, UNREADABLE rows are not objects.
        kept: the interactions, in the order of the sample.
        answers: number of answers; more than len(kept) if rows contain more answers than are examined.
        rejected: number of rejected records.
        reasons: code of the reason → records; batch requests that were joined with their answers are not counted.
        examples: code → the sentence of the first record.
        values: the objects that were read or match no format, without sessions.
        strangers: those of them that match no format.
    """

    sample: Sample
    formats: Counter[str] = field(default_factory=Counter)
    kept: list[Interaction] = field(default_factory=list)
    answers: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    values: list[Mapping[str, Any]] = field(default_factory=list)
    strangers: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def rejected_share(self) -> float:
        total = self.answers + self.rejected
        return self.rejected / total if total else 0.0

    @property
    def cut(self) -> int:
        """Number of interactions whose answers seem truncated."""
        return sum(map(is_cut, self.kept))

    def shown_reasons(self) -> list[tuple[str, int]]:
        """An example of each kind of rejection with its count, the most frequent first."""
        return [(self.examples[code], count) for code, count in self.reasons.most_common()]

    def by_role(self) -> dict[str, list[Interaction]]:
        """Role → its interactions, the most frequent role first."""
        found: dict[str, list[Interaction]] = {}
        for one in self.kept:
            found.setdefault(one.role, []).append(one)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def is_cut(one: Interaction) -> bool:
    """Whether the answer seems truncated: by its finish reason, within reasoning or within a code block."""
    text = one.output or ""
    return one.finish_reason == "length" or reasoning.unclosed(text) or text.count("```") % 2 == 1


def surveyed(sample: Sample, data: DataConfig) -> Survey:
    """Reads every sampled row as ingest does with these settings.

    Raises:
        UsageError: data.format or data.columns names something that does not exist.
    """
    reader, made = Reader(data), Survey(sample)
    for file in sample.files:
        for row in file.rows:
            _add(made, reader, row, file.name)
    return made


def _add(made: Survey, reader: Reader, row: Row, name: str) -> None:
    row = row.parsed() if row.session is None else row
    records = reader.records(row, name)
    kept = [one for one in records if isinstance(one, Interaction)]
    made.answers += len(kept)
    step = max(1, len(kept) // _MOST_OF_A_ROW)
    made.kept += kept[::step]
    for one in records:
        if isinstance(one, Rejected) and one.reason.code != BatchRequestJoined.code:
            made.rejected += one.rows
            made.reasons[one.reason.code] += one.rows
            made.examples.setdefault(one.reason.code, plain(one.reason.sentence(), 300))
    if row.session is not None:
        made.formats[row.session] += 1
    elif row.value is None:
        made.formats[UNREADABLE] += not isinstance(row.problem, BatchRequestJoined)
    else:
        for value in _inner(reader, row.value):
            found = reader.format_of(value)
            made.formats[found or UNKNOWN] += 1
            made.values.append(value)
            if found is None:
                made.strangers.append(value)


def _inner(reader: Reader, value: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The row itself, or the rows within it if it is a page of rows."""
    if reader.format_of(value) is not None:
        return [value]
    lists = list(inner_rows(value, reader.format_of).values())
    return [one for one in lists[0] if isinstance(one, dict)] if len(lists) == 1 else [value]
