"""Tables in files: CSV with any common delimiter, and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from journeyman.errors import UsageError
from journeyman.reasons import files as why
from journeyman.sources.rows import MAX_ROW_BYTES, Row, parse_text, refused

_SEPARATORS = ",;\t|"


def csv_rows(stream: io.BufferedReader, tabs: bool, skip: int) -> Iterator[Row]:
    """Yields the rows below the header as objects whose values are strings."""
    csv.field_size_limit(MAX_ROW_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    separator = "\t" if tabs else max(_SEPARATORS, key=lambda sign: (first.count(sign), sign == ","))
    reader = csv.reader(_with(first, text), delimiter=separator)
    header = next(reader, [])
    if problem := _bad_header(header):
        if not skip:
            lost = sum(1 for _ in reader)
            yield refused(1, replace(problem, lost=lost), first)
        return
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield refused(reader.line_num, why.NotCsv(str(error)), "")
            return
        if not cells:
            continue
        if skip:
            skip -= 1
        else:
            yield _row(header, cells, reader.line_num, separator)


def _with(first: str, rest: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from rest


def _bad_header(header: list[str]) -> why.AmbiguousColumns | None:
    """Says why the columns are ambiguous, or None."""
    names = [name.strip() for name in header]
    repeated = ", ".join(repr(name) for name, count in Counter(names).items() if count > 1 and name)
    unnamed = ", ".join(str(place) for place, name in enumerate(names, 1) if not name and len(names) > 1)
    return why.AmbiguousColumns(repeated, unnamed, 0) if repeated or unnamed else None


def _row(header: list[str], cells: list[str], line: int, separator: str) -> Row:
    shown = separator.join(cells)
    if len(cells) != len(header):
        return refused(line, why.CellCount(len(cells), len(header)), shown)
    try:
        shown.encode()
    except UnicodeEncodeError:
        return refused(line, why.NotUtf8(), shown)
    return Row(line, dict(zip(header, cells, strict=True)), None, shown[:200])


def parquet_rows(path: Path, skip: int) -> Iterator[tuple[Row, int]]:
    """Yields the rows, each with its share of the file's bytes; a damaged file ends with a row that says so."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{path}: reading Parquet needs pyarrow", "Run: pip install 'journeyman[parquet]'") from error
    if not path.is_file():
        raise FileNotFoundError(path)
    number, size = 0, path.stat().st_size
    try:
        file = parquet.ParquetFile(path)
        total = max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                number += 1
                if number > skip:
                    yield parse_text(json.dumps(value, default=str), number), size * number // total
    except pyarrow.ArrowException as error:
        yield refused(number + 1, why.ParquetDamaged(str(error), number), ""), size
