"""ingest: log files → typed interactions without secrets, rejected rows, and statistics.

Works in a stream: memory use does not grow with the logs. After an interruption or a kill, it resumes from the last
commit.
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from journeyman.append_log import AppendLogs
from journeyman.artifacts import read_rows, row_bytes
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputChanged, InputError, Interrupted, JourneymanError
from journeyman.foreign import plain
from journeyman.manifests import CountedReason, Durations, IngestManifest, LogGroup
from journeyman.parallel import HERE, LOCAL, Executor
from journeyman.protocols import Reporter
from journeyman.reasons import Detail, ReasonRecord, Text
from journeyman.reasons.files import OtherReasons
from journeyman.records import Interaction, Rejected
from journeyman.redaction.redactor import Redactor
from journeyman.sources.batches import Batches
from journeyman.sources.files import Row, Source, read_file
from journeyman.sources.reader import Reader
from journeyman.stats.describe import mean, median, percentile

_ROWS, _REJECTED = "interactions.jsonl.zst", "rejected.jsonl"
_RESERVOIR = 200_000
_REASONS = 100
_MOST_ALIKE = 2_000
"""Rejected rows of one source and reason that are stored; a compressed file of kilobytes can contain millions."""
_MOST_DETAIL = 300
"""The most characters of one detail of a reason."""
_BATCH_BYTES = 1 << 20
_TYPICAL_ROW = 3000
_WORTH_WORKERS = 32 << 20
"""Bytes of logs from which starting worker processes pays off (it takes a second)."""


def ingest(
    sources: Sequence[Source],
    data: DataConfig,
    redact: RedactConfig,
    out: Path,
    reporter: Reporter,
    skipped: Mapping[str, int] | None = None,
    executor: Executor = LOCAL,
) -> IngestManifest:
    """Reads all sources into `out`, or resumes where an earlier call was stopped.

    Args:
        skipped: files next to the sources that are not logs by their names → bytes; listed in the result.
        executor: where large logs are parsed and redacted.

    Raises:
        UsageError: a source is missing, or data.format is unknown.
        InputError: no source contains a usable interaction.
        InputChanged: a source changed while it was being read.
        Interrupted: asked to stop; what was read so far is kept.
    """
    skipped = dict(skipped or {})
    Reader(data)  # a wrong setting must fail here, not in a worker
    sizes = [source.path.stat().st_size if source.path.is_file() else 0 for source in sources]
    reporter.begin("ingest", sum(sizes), "bytes")
    with AppendLogs(out, (_ROWS, _REJECTED)) as outputs:
        start = outputs.state or {"source": 0, "rows": 0, "read": 0, "refused": {}}
        refused = _Refused(start["source"], start["refused"])
        tally = _restored(out, start) if outputs.state else _Tally()
        read = _Count(start["read"])
        batches = _batches(sources, start["source"], start["rows"], data.encoding, read)
        handled = start["read"]
        setup = partial(_Worker, data, redact)
        workers = executor if sum(sizes) > _WORTH_WORKERS else HERE
        for made in workers.map_batches(
            _read_batch, setup, batches, named=_Batch.place, stopping=lambda: reporter.stop_requested
        ):
            outputs.write(_ROWS, made.kept)
            outputs.write(_REJECTED, refused.written(made.source, made.rejected))
            for seen in made.seen:
                tally.add(seen)
            handled += made.handled
            reporter.advance(sum(sizes[: made.source]) + made.bytes_read)
            if outputs.commit_due or reporter.stop_requested:
                state = {"source": made.source, "rows": made.rows, "read": handled, "refused": refused.state}
                outputs.commit({**state, **tally.refused})
            if reporter.stop_requested:
                raise Interrupted(
                    f"stopped after row {made.rows} of {sources[made.source].name}", "Run it again to resume"
                )
        # Two independent counts: rows that were read from files, and rows that became records.
        assert handled == read.rows, f"{read.rows} rows were read, but {handled} became records"
        outputs.write(_REJECTED, refused.counted())
        outputs.commit({"source": len(sources), "rows": 0, "read": handled, "refused": {}, **tally.refused})
    outputs.remove_progress()
    if tally.total.rows == 0:
        named = ", ".join(str(source.path) for source in sources)
        raise InputError(
            f"{named}: no usable interaction in {tally.rejected} rows{tally.first_reasons()}",
            "Check data.sources and data.format",
        )
    return tally.manifest(handled, skipped)


@dataclass(frozen=True)
class _Batch:
    """Rows of one source; `rows` and `bytes_read` count from its beginning to the end of the batch."""

    source: int
    name: str
    content: list[Row]
    rows: int
    bytes_read: int

    def place(self) -> str:
        return f"{self.name}, rows {self.rows - len(self.content) + 1} to {self.rows}"


_NoteKey = tuple[str, tuple[tuple[str, Detail], ...]]
"""Code and details of a note."""


class _Seen(NamedTuple):
    """What the tally needs of a record; `reason` is the key of the reason if it was rejected."""

    role: str = ""
    teacher: str = ""
    succeeded: bool | None = None
    duration_ms: float | None = None
    redacted: dict[str, int] | None = None
    notes: tuple[_NoteKey, ...] = ()
    reason: str | None = None
    code: str = ""


@dataclass(frozen=True)
class _Made:
    source: int
    rows: int
    handled: int
    bytes_read: int
    kept: bytes
    rejected: list[Rejected]
    seen: list[_Seen]


class _Count:
    """Rows that were read from files."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


def _batches(sources: Sequence[Source], first: int, skip: int, encoding: str, read: _Count) -> Iterator[_Batch]:
    batches = Batches([source.path for source in sources], encoding)
    for number in range(first, len(sources)):
        skipped = skip if number == first else 0
        content: list[Row] = []
        rows, size, done = skipped, 0, 0
        unchanged = _Unchanged(sources[number].path)
        found = batches.joined(number, read_file(sources[number].path, skipped, encoding))
        for row, done in unchanged.checked(found):
            content.append(row)
            rows += 1
            read.rows += 1
            size += len(row.raw or "") or _TYPICAL_ROW
            if size >= _BATCH_BYTES:
                unchanged.check()
                yield _Batch(number, sources[number].name, content, rows, done)
                content, size = [], 0
        unchanged.check()
        if content:
            yield _Batch(number, sources[number].name, content, rows, done)


class _Unchanged:
    """Refuses a log that is written to while it is being read, because its rows would be inconsistent."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, _state_of(path)

    def checked(self, rows: Iterator[tuple[Row, int]]) -> Iterator[tuple[Row, int]]:
        """Yields the rows; if reading fails because the file changed, the error says so."""
        try:
            yield from rows
        except JourneymanError:
            self.check()
            raise

    def check(self) -> None:
        now = _state_of(self._path)
        if now != self._before and self._before is not None:
            what = f"{self._before[0]:,} bytes when it was opened, {now[0]:,} now" if now else "it no longer exists"
            raise InputChanged(
                f"{self._path}: changed while it was being read ({what})",
                "Make sure that nothing writes to it, or set data.sources to a copy, and run it again",
            )


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """Size, modification time and inode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


class _Worker:
    def __init__(self, data: DataConfig, redact: RedactConfig) -> None:
        self.reader = Reader(data)
        self.redactor = Redactor(redact.secrets, redact.personal)


def _read_batch(worker: _Worker, batch: _Batch) -> _Made:
    kept, rejected, seen = [], [], []
    handled = 0
    for row in batch.content:
        records = worker.reader.records(row, batch.name)
        handled += bool(records)
        for record in records:
            if isinstance(record, Rejected):
                record = _without_secrets(record, worker.redactor)
                rejected.append(record)
            else:
                record = worker.redactor.interaction(record)
                kept.append(row_bytes(record))
            seen.append(_seen(record))
    return _Made(batch.source, batch.rows, handled, batch.bytes_read, b"".join(kept), rejected, seen)


def _without_secrets(record: Rejected, redactor: Redactor) -> Rejected:
    found = redactor.conversation()
    details = {
        name: plain(found.text(value), _MOST_DETAIL) if isinstance(value, str) else value
        for name, value in record.reason.details.items()
    }
    reason = ReasonRecord(code=record.reason.code, details=details)
    return record.model_copy(update={"reason": reason, "text": found.text(record.text)})


def _key(reason: ReasonRecord) -> str:
    """The key by which reasons are counted: code and details, without the position in the row or file."""
    details = {name: value for name, value in reason.details.items() if name != "at"}
    return json.dumps([reason.code, details], ensure_ascii=False)


def _of_key(key: str) -> ReasonRecord:
    """The reason of a key; in a run that an older version started, keys are sentences."""
    try:
        code, details = json.loads(key)
        return ReasonRecord(code=code, details=details)
    except ValueError:
        return Text(key).record()


_OTHERS = _key(OtherReasons().record())


class _Refused:
    """Writes rejected rows: for each source and reason the first ones, then one line that counts the others.

    Attributes:
        state: key of a reason → rows of the current source, and the position of the last one.
    """

    def __init__(self, source: int, state: dict[str, Any]) -> None:
        self._source, self.state = source, state

    def written(self, source: int, rejected: Sequence[Rejected]) -> bytes:
        done = b"" if source == self._source else self.counted()
        self._source = source
        lines = []
        for record in rejected:
            reason = _key(record.reason)
            if reason not in self.state and len(self.state) >= _REASONS:
                reason = _OTHERS
            rows = self.state.get(reason, [0])[0] + 1
            self.state[reason] = [rows, record.line, record.source]
            if rows <= _MOST_ALIKE:
                lines.append(row_bytes(record))
        return done + b"".join(lines)

    def counted(self) -> bytes:
        """A line for each reason with rows that were not stored; resets the counts for the next source."""
        lines = []
        for reason, (rows, line, source) in self.state.items():
            if (more := rows - _MOST_ALIKE) > 0:
                text = f"{more:,} more rows; this is the last one"
                one = Rejected(source=source, line=line, reason=_of_key(reason), text=text, rows=more)
                lines.append(row_bytes(one))
        self.state = {}
        return b"".join(lines)


def _seen(record: Interaction | Rejected) -> _Seen:
    if isinstance(record, Rejected):
        return _Seen(reason=_key(record.reason), code=record.reason.code)
    notes = tuple((note.code, tuple(note.details.items())) for note in record.notes)
    return _Seen(record.role, record.teacher, record.succeeded, record.duration_ms, record.redacted or None, notes)


class _Group:
    """Counts and durations of one role or teacher; of more than 200,000 durations, a uniform sample is kept."""

    def __init__(self) -> None:
        self.rows = self.successes = self.failures = self.n = 0
        self.sum_s = 0.0
        self.sample_s = array("d")
        self._random = random.Random(0)

    def add(self, row: _Seen) -> None:
        self.rows += 1
        self.successes += row.succeeded is True
        self.failures += row.succeeded is False
        if row.succeeded is False or row.duration_ms is None:
            return
        seconds = row.duration_ms / 1000
        self.n += 1
        self.sum_s += seconds
        if len(self.sample_s) < _RESERVOIR:
            self.sample_s.append(seconds)
        elif (place := self._random.randrange(self.n)) < _RESERVOIR:
            self.sample_s[place] = seconds

    def manifest(self) -> LogGroup:
        sample = list(self.sample_s)
        average = mean(sample) if self.n == len(sample) else self.sum_s / self.n
        durations = Durations(n=self.n, mean_s=average, median_s=median(sample), p95_s=percentile(sample, 0.95))
        return LogGroup(rows=self.rows, successes=self.successes, failures=self.failures, durations=durations)


class _Tally:
    def __init__(self) -> None:
        self.total = _Group()
        self.by_role: dict[str, _Group] = defaultdict(_Group)
        self.by_teacher: dict[str, _Group] = defaultdict(_Group)
        self.redacted: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rejected_by: Counter[str] = Counter()
        self.notes: Counter[_NoteKey] = Counter()
        self.rejected = 0

    def add(self, seen: _Seen) -> None:
        if seen.reason is not None:
            self.rejected += 1
            self.rejected_by[seen.code] += 1
            if seen.reason in self.reasons or len(self.reasons) < _REASONS:
                self.reasons[seen.reason] += 1
            return
        for group in (self.total, self.by_role[seen.role], self.by_teacher[seen.teacher]):
            group.add(seen)
        self.redacted.update(seen.redacted or {})
        for note in seen.notes:
            if note in self.notes or len(self.notes) < _REASONS:
                self.notes[note] += 1

    @property
    def refused(self) -> dict[str, Any]:
        """The counts that a commit must save, because not all rejected rows are stored."""
        return {"rejected": self.rejected, "reasons": self.reasons, "rejected_by": self.rejected_by}

    def first_reasons(self) -> str:
        return "".join(f"; {one.rows} × {one.sentence()}" for one in self._reasons(2))

    def _reasons(self, most: int) -> list[CountedReason]:
        found = ((_of_key(key), rows) for key, rows in self.reasons.most_common(most))
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


def _restored(out: Path, state: Mapping[str, Any]) -> _Tally:
    """The tally of what an interrupted run has already stored."""
    tally = _Tally()
    for row in read_rows(out / _ROWS, Interaction):
        tally.add(_seen(row))
    tally.rejected, tally.reasons = state["rejected"], Counter(state["reasons"])
    older = Counter({Text.code: tally.rejected})  # whose reasons had no codes
    tally.rejected_by = Counter(state["rejected_by"]) if "rejected_by" in state else older
    return tally
