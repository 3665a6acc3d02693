"""A bounded sample of log files: some rows from the beginning, middle and end of some files, whatever their sizes.

At most 40 files, about 1,500 rows and 24 MB are read. Plain lines are sampled at five places of a file by seeking;
files that cannot be entered in the middle (compressed, CSV, JSON documents, Parquet, archives) are read from their
beginning up to their share of the bytes. The same files always give the same sample.
"""

from __future__ import annotations

import io
import itertools
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.reasons import files as why
from journeyman.sources.batches import Batches
from journeyman.sources.documents import is_document, lines_of
from journeyman.sources.files import Source, bare_name, read_file, stream_rows
from journeyman.sources.opening import CHUNK, DAMAGED, opened
from journeyman.sources.rows import Row, refused
from journeyman.sources.session_files import session_format

MOST_FILES, MOST_ROWS, MOST_BYTES = 40, 1_500, 24 << 20
_LEAST_ROWS, _LEAST_BYTES = 20, 512 << 10
_PLACES = 5
_WHOLE_FILES = (".zip", ".parquet", ".eval")

Part = Literal["whole", "beginning", "places"]


@dataclass(frozen=True)
class SampledFile:
    """What was read of one file.

    Attributes:
        rows: not parsed where the file has lines.
        part: the "whole" file was looked at, only its "beginning", or several "places" from beginning to end.
        size: bytes of the file.
        rows_in_file: exact where all of it was looked at, else estimated from the bytes; None where neither is known.
    """

    name: str
    path: Path
    size: int
    rows: list[Row]
    part: Part
    rows_in_file: int | None


@dataclass(frozen=True)
class Sample:
    """The sampled files, among all that the sources name."""

    files: list[SampledFile]
    all_files: int
    all_bytes: int
    unread: dict[str, str] = field(default_factory=dict)
    """file → why nothing was read of it"""

    @property
    def rows(self) -> int:
        return sum(len(one.rows) for one in self.files)

    @property
    def whole(self) -> bool:
        """Every row of every file is in it."""
        return len(self.files) == self.all_files and all(
            one.part == "whole" and one.rows_in_file == len(one.rows) for one in self.files
        )

    @property
    def rows_in_all(self) -> int | None:
        """About how many rows the logs hold; None where that cannot be estimated."""
        known = [one for one in self.files if one.rows_in_file is not None]
        size = sum(one.size for one in known)
        if not known or not size:
            return None
        return round(sum(one.rows_in_file or 0 for one in known) * max(1.0, self.all_bytes / size))


def sampled(sources: Sequence[Source], data: DataConfig) -> Sample:
    """Reads the sample.

    Args:
        sources: what `log_sources` found.
        data: how rows are read; only `encoding` matters here.

    Raises:
        UsageError: a single file was named, and it cannot be read.
    """
    sizes = {one.path: one.path.stat().st_size if one.path.is_file() else 0 for one in sources}
    chosen = _chosen(sources, sizes)
    rows, size = max(_LEAST_ROWS, MOST_ROWS // len(chosen)), max(_LEAST_BYTES, MOST_BYTES // len(chosen))
    small = [one.path for one in chosen if sizes[one.path] <= size]
    batches, places = Batches(small, data.encoding), {path: place for place, path in enumerate(small)}
    files, unread = [], {}
    for one in chosen:
        try:
            made = _of_file(one, sizes[one.path], rows, size, data.encoding)
        except (UsageError, OSError) as error:
            if len(sources) == 1:
                raise
            unread[one.name] = str(error)
            continue
        if one.path in places:
            joined = batches.joined(places[one.path], ((row, 0) for row in made.rows))
            made = replace(made, rows=[row for row, _ in joined])
        files.append(made)
    return Sample(files, len(sources), sum(sizes.values()), unread)


def _chosen(sources: Sequence[Source], sizes: dict[Path, int]) -> list[Source]:
    """Evenly over the list, with at least one file of each kind of name and the largest one."""
    if len(sources) <= MOST_FILES:
        return list(sources)
    kinds = {bare_name(one.path.name.lower()).rpartition(".")[2]: one for one in reversed(sources)}
    must = [max(sources, key=lambda one: sizes[one.path]), *list(kinds.values())[: MOST_FILES // 4]]
    left = MOST_FILES - len(must)
    spread = [sources[place * (len(sources) - 1) // (left - 1)] for place in range(left)]
    taken = {one.path for one in (*must, *spread)}
    return [one for one in sources if one.path in taken]


def _of_file(source: Source, size: int, rows: int, most: int, encoding: str) -> SampledFile:
    name = bare_name(source.path.name.lower())
    if name.endswith(_WHOLE_FILES) or not source.path.is_file() or zipfile.is_zipfile(source.path):
        found = _bounded(read_file(source.path, 0, encoding), rows, most)
        return _made(source, size, found)
    with opened(source.path, encoding) as (stream, raw):
        if session_format(stream.peek(1 << 16)) is not None:
            return _made(source, size, _bounded(read_file(source.path, 0, encoding), rows, most))
        lines = not name.endswith((".csv", ".tsv", ".traj")) and not is_document(stream, name)
        if lines and stream is raw and size > most:
            return _at_places(source, size, raw, rows, most)
        limited = _Limited(stream, most)
        found = _bounded(_told(limited, name), rows)
        found.stopped = limited.cut
        if limited.cut and not found.rows:
            found.rows.append(refused(1, why.BeyondSample(most >> 20), ""))
        return _made(source, size, found, read=raw.tell())


class _Found:
    """Rows spread evenly over all that passed, in bounded memory: from time to time every other one is left out."""

    def __init__(self, most: int) -> None:
        self.rows: list[Row] = []
        self.passed, self.stopped, self._most, self._step = 0, False, most, 1
        self._last: Row | None = None

    def add(self, row: Row) -> None:
        self._last = row
        if self.passed % self._step == 0:
            self.rows.append(row)
        self.passed += 1
        if len(self.rows) >= 2 * self._most:
            self.rows, self._step = self.rows[::2], 2 * self._step

    def ended(self) -> _Found:
        if len(self.rows) > self._most:
            self.rows = [self.rows[place * len(self.rows) // self._most] for place in range(self._most)]
        last = self._last
        if last is not None and last.raw is None and last.value is None and self.rows[-1] is not last:
            self.rows.append(last)  # where a file is damaged, its last row says so
        return self


def _bounded(rows: Iterable[tuple[Row, int]], most_rows: int, most_bytes: float = math.inf) -> _Found:
    found, size = _Found(most_rows), 0
    for row, _ in rows:
        found.add(row)
        size += len(row.raw or b"") or 2_000
        if size > most_bytes:
            found.stopped = True
            break
    return found.ended()


def _told(limited: _Limited, name: str) -> Iterator[tuple[Row, int]]:
    """The rows of the bytes that may be read; the last one, where it was cut, is none."""
    last: Row | None = None
    stream, number = cast(io.BufferedReader, io.BufferedReader(limited, CHUNK)), 0
    try:
        for row in stream_rows(stream, name, 0):
            if limited.cut and row.raw is None and row.value is None:
                break  # the piece of a value at which the sample ends, not a fault of the file
            if last is not None:
                yield last, 0
            last, number = row, row.line
    except (*DAMAGED, OSError) as error:
        if last is not None:
            yield last, 0
        last = refused(number + 1, why.FileDamaged(str(error), number), "")
    if last is not None and not limited.cut:
        yield last, 0


def _made(source: Source, size: int, found: _Found, read: int = 0) -> SampledFile:
    """`read`: bytes of the file that were read; 0 where that is not known."""
    part: Part = "beginning" if found.stopped or 0 < read < size else "whole"
    count: int | None = found.passed
    if part == "beginning":
        count = round(found.passed * size / read) if 0 < read < size else None
    return SampledFile(source.name, source.path, size, found.rows, part, count)


def _at_places(source: Source, size: int, raw: Any, rows: int, most: int) -> SampledFile:
    """Rows at the beginning, at places between, and at the end, of a file of plain lines."""
    found: list[Row] = []
    each, span, seen, seen_bytes = max(1, rows // _PLACES), most // _PLACES, 0, 0
    for place in range(_PLACES):
        begin = (size - span) * place // (_PLACES - 1)
        raw.seek(begin)
        here: list[Row] = []
        left = span
        for row in itertools.islice(lines_of(raw, 0), 0 if begin == 0 else 1, None):
            left -= len(row.raw or b"") + 1
            if here and left < 0:
                break
            here.append(row)
        seen, seen_bytes = seen + len(here), seen_bytes + sum(len(row.raw or b"") + 1 for row in here)
        last = place == _PLACES - 1
        found += here[-each:] if last else here[:each]
    found = [replace(row, line=number) for number, row in enumerate(found, start=1)]
    return SampledFile(source.name, source.path, size, found, "places", round(seen * size / max(1, seen_bytes)))


class _Limited(io.RawIOBase):
    """The first bytes of a stream; `cut` tells that there are more."""

    def __init__(self, stream: io.BufferedReader, most: int) -> None:
        self._stream, self._left, self.cut = stream, most, False

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if self._left <= 0:
            self.cut = bool(self._stream.peek(1))
            return 0
        piece = self._stream.read1(min(len(target), self._left))
        target[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)
