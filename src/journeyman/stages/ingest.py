"""ingest: log files → typed interactions without secrets, rejected rows, and statistics.

Works in a stream: memory use does not grow with the logs. After an interruption or a kill, it resumes from the last
commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from journeyman.append_log import AppendLogs, compressed
from journeyman.artifacts import row_bytes
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputChanged, InputError, Interrupted, JourneymanError
from journeyman.foreign import plain
from journeyman.manifests import IngestManifest
from journeyman.parallel import HERE, LOCAL, Executor
from journeyman.protocols import Reporter
from journeyman.reasons import ReasonRecord
from journeyman.reasons.files import OtherReasons
from journeyman.records import Rejected
from journeyman.redaction.redactor import Redactor
from journeyman.sources.batches import Batches
from journeyman.sources.files import Row, Source, read_file
from journeyman.sources.reader import Reader
from journeyman.sources.rows import Packed
from journeyman.stages.ingest_tally import MOST_REASONS, Seen, Tally, key_of, reason_of, restored

_ROWS, _REJECTED = "interactions.jsonl.zst", "rejected.jsonl"
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
        tally = restored(out / _ROWS, start) if outputs.state else Tally()
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
            tally.add(made.seen)
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
    content: list[Packed]
    rows: int
    bytes_read: int

    def place(self) -> str:
        return f"{self.name}, rows {self.rows - len(self.content) + 1} to {self.rows}"


class _Turned(NamedTuple):
    """A rejected row: the key of its reason, its place, and the row to store."""

    reason: str
    line: int
    source: str
    row: bytes


@dataclass(frozen=True)
class _Made:
    """Of a batch; `kept` is compressed."""

    source: int
    rows: int
    handled: int
    bytes_read: int
    kept: bytes
    rejected: list[_Turned]
    seen: Seen


class _Count:
    """Rows that were read from files."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


def _batches(sources: Sequence[Source], first: int, skip: int, encoding: str, read: _Count) -> Iterator[_Batch]:
    batches = Batches([source.path for source in sources], encoding)
    for number in range(first, len(sources)):
        skipped = skip if number == first else 0
        content: list[Packed] = []
        rows, size, done = skipped, 0, 0
        unchanged = _Unchanged(sources[number].path)
        found = batches.joined(number, read_file(sources[number].path, skipped, encoding))
        for row, done in unchanged.checked(found):
            content.append(row.packed())
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
    kept, rejected, seen = [], [], Seen()
    handled = 0
    for row in map(Row.unpacked, batch.content):
        records = worker.reader.records(row, batch.name)
        handled += bool(records)
        for record in records:
            if isinstance(record, Rejected):
                record = _without_secrets(record, worker.redactor)
                rejected.append(_Turned(key_of(record.reason), record.line, record.source, row_bytes(record)))
            else:
                record = worker.redactor.interaction(record)
                kept.append(row_bytes(record))
            seen.add(record)
    return _Made(batch.source, batch.rows, handled, batch.bytes_read, compressed(b"".join(kept)), rejected, seen)


def _without_secrets(record: Rejected, redactor: Redactor) -> Rejected:
    found = redactor.conversation()
    details = {
        name: plain(found.text(value), _MOST_DETAIL) if isinstance(value, str) else value
        for name, value in record.reason.details.items()
    }
    reason = ReasonRecord(code=record.reason.code, details=details)
    return record.model_copy(update={"reason": reason, "text": found.text(record.text)})


_OTHERS = key_of(OtherReasons().record())


class _Refused:
    """Writes rejected rows: for each source and reason the first ones, then one line that counts the others.

    Attributes:
        state: key of a reason → rows of the current source, and the position of the last one.
    """

    def __init__(self, source: int, state: dict[str, Any]) -> None:
        self._source, self.state = source, state

    def written(self, source: int, rejected: Sequence[_Turned]) -> bytes:
        done = b"" if source == self._source else self.counted()
        self._source = source
        lines = []
        for record in rejected:
            reason = record.reason
            if reason not in self.state and len(self.state) >= MOST_REASONS:
                reason = _OTHERS
            rows = self.state.get(reason, [0])[0] + 1
            self.state[reason] = [rows, record.line, record.source]
            if rows <= _MOST_ALIKE:
                lines.append(record.row)
        return done + b"".join(lines)

    def counted(self) -> bytes:
        """A line for each reason with rows that were not stored; resets the counts for the next source."""
        lines = []
        for reason, (rows, line, source) in self.state.items():
            if (more := rows - _MOST_ALIKE) > 0:
                text = f"{more:,} more rows; this is the last one"
                one = Rejected(source=source, line=line, reason=reason_of(reason), text=text, rows=more)
                lines.append(row_bytes(one))
        self.state = {}
        return b"".join(lines)
