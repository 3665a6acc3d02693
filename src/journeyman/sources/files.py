"""Opens log files: JSON lines, JSON documents, CSV and Parquet, plain or compressed (.gz, .zst), row by row.

Memory does not grow with the file: one row is held at a time, and a row longer than 16 MiB is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from journeyman.artifacts import expanded
from journeyman.errors import InputError, UsageError
from journeyman.sources.fields import kind

MAX_ROW_BYTES = 16 << 20
MAX_DEPTH = 64
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".log")
COMPRESSED = (".gz", ".zst")
_CHUNK = 1 << 20


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        line: number of the line, or of the element in a document, from 1.
        value: the JSON object, or None where there is none.
        problem: why there is none.
        text: the row's beginning, for the report of rejected rows.
        raw: a line that is not parsed yet: reading is serial, parsing need not be.
    """

    line: int
    value: dict[str, Any] | None
    problem: str
    text: str
    raw: bytes | None = None

    def parsed(self) -> Row:
        return self if self.raw is None else parse_line(self.raw, self.line)


def log_files(root: Path, name: str) -> list[Path]:
    """The files that one entry of data.sources names: a file, a folder or a glob, below `root`.

    Raises:
        UsageError: nothing is there.
    """
    path = root / expanded(name)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and _is_log(p))
        if not found:
            kinds = " ".join(SUFFIXES)
            raise UsageError(f"data.sources: {path}: no log file in this folder ({kinds})", "Mend data.sources")
        return found
    if any(sign in name for sign in "*?[") and not path.exists():
        anchor = Path(path.anchor)
        found = sorted(p for p in anchor.glob(str(path.relative_to(anchor))) if p.is_file())
        if not found:
            raise UsageError(f"data.sources: {name!r} matches no file below {root}", "Mend data.sources")
        return found
    return [path]


def _is_log(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED]
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not path.name.startswith(".")


def read_file(path: Path, skip: int = 0) -> Iterator[tuple[Row, int]]:
    """Every non-blank row after the first `skip`, with the bytes of the file read so far.

    Raises:
        UsageError: the file is missing or cannot be read.
        InputError: the compressed stream, or the Parquet file, is damaged.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, skip)
            return
        with _opened(path) as (stream, raw):
            if name.endswith((".csv", ".tsv")):
                rows = _csv(stream, "\t" if name.endswith(".tsv") else ",", skip)
            elif _is_document(stream, name):
                rows = _document(stream, skip)
            else:
                rows = _lines(stream, skip)
            for row in rows:
                yield row, raw.tell()
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", "Set data.sources in journeyman.toml to your log files") from error
    except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
        raise InputError(
            f"{path}: the compressed data end too early or are damaged: {error}", "Get it again"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", "Make the file readable and run it again") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedReader, IO[bytes]]]:
    """The decompressed stream, and the file below it whose position tells the progress."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as unzipped:
                yield io.BufferedReader(unzipped, _CHUNK), raw
        elif path.suffix.lower() == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            yield io.BufferedReader(reader, _CHUNK), raw
        else:
            yield raw, raw


def _is_document(stream: io.BufferedReader, name: str) -> bool:
    """One JSON document rather than lines: it starts with a bracket, or the first line is no whole object."""
    if name.endswith((".jsonl", ".ndjson")):
        return False
    head = stream.peek(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] == b"[":
        return True
    if not name.endswith(".json") or head[:1] != b"{":
        return False
    line, _, rest = head.partition(b"\n")
    try:
        json.loads(line)
    except ValueError:
        return True
    return not rest.strip()


def _lines(stream: io.BufferedReader, skip: int) -> Iterator[Row]:
    number = 0
    while lines := _some_lines(stream):
        for line in lines:
            number += 1
            if not line.strip():
                continue
            if skip:
                skip -= 1
            elif len(line) > MAX_ROW_BYTES:
                yield _refused(number, f"longer than {MAX_ROW_BYTES >> 20} MiB", line)
            else:
                yield Row(number, None, "", "", line)


def _some_lines(stream: io.BufferedReader) -> list[bytes]:
    """About a megabyte of lines; of one that is too long only its beginning, so that memory stays bounded."""
    chunk = stream.read(_CHUNK)
    if not chunk:
        return []
    if not chunk.endswith(b"\n"):
        chunk += stream.readline(MAX_ROW_BYTES + 1)
    if not chunk.endswith(b"\n"):
        while (more := stream.readline(_CHUNK)) and not more.endswith(b"\n"):
            pass
    lines = chunk.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def parse_line(line: bytes, number: int) -> Row:
    """One line of JSON as a row."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _refused(number, f"not UTF-8: byte {error.start}", line)
    return _parse_text(text, number)


def _parse_text(text: str, number: int) -> Row:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return _refused(number, f"not JSON: {error.msg} at column {error.colno}", text)
    except (RecursionError, ValueError):
        return _refused(number, "not usable JSON: nested too deeply, a number too long, NaN or Infinity", text)
    return _checked(value, number, text)


def _checked(value: Any, number: int, text: str) -> Row:
    if not isinstance(value, dict):
        return _refused(number, f"a JSON {kind(value)}, not an object", text)
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        return _refused(number, f"nested more than {MAX_DEPTH} deep", text)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return _refused(number, "holds half of a surrogate pair", text)
    return Row(number, value, "", text[:200])


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


def _refused(number: int, problem: str, text: bytes | str) -> Row:
    shown = text[:400].decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    return Row(number, None, problem, shown[:200].encode("utf-8", "replace").decode().rstrip())


def _document(stream: io.BufferedReader, skip: int) -> Iterator[Row]:
    """Elements of a JSON list; or of the list in an object's `data` or `runs`; or the one object."""
    characters = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace")
    buffer = characters.read(_CHUNK).lstrip()
    if buffer[:1] == "{":
        yield from _object_document(buffer + characters.read(16 * MAX_ROW_BYTES), skip)
        return
    decoder, number, buffer = _DECODER, 0, buffer[1:]
    while True:
        buffer = buffer.lstrip(", \t\r\n")
        if not buffer or buffer[0] == "]":
            more = characters.read(_CHUNK) if not buffer else ""
            if not more:
                return
            buffer = more
            continue
        number += 1
        row, rest = _next_element(decoder, buffer, characters, number)
        if skip:
            skip -= 1
        else:
            yield row
        if rest is None:
            return
        buffer = rest


def _next_element(
    decoder: json.JSONDecoder, buffer: str, characters: io.TextIOWrapper, number: int
) -> tuple[Row, str | None]:
    """One element of a list and the text after it; None after it where the list cannot be read further."""
    while True:
        try:
            value, end = decoder.raw_decode(buffer)
        except RecursionError:
            return _refused(number, "nested too deeply; the rest of the document is lost", buffer), None
        except ValueError as error:
            more = characters.read(max(_CHUNK, len(buffer))) if len(buffer) <= MAX_ROW_BYTES else ""
            if not more:
                why = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long, NaN or Infinity"
                return _refused(number, f"not JSON: {why}; the rest of the document is lost", buffer), None
            buffer += more
            continue
        if end == len(buffer) and not isinstance(value, dict) and (more := characters.read(_CHUNK)):
            buffer += more  # a number may go on in the next chunk
            continue
        return _checked(value, number, buffer[:end]), buffer[end:]


def _object_document(text: str, skip: int) -> Iterator[Row]:
    whole = _parse_text(text, 1)
    rows = [whole]
    if whole.value is not None:
        for key in ("data", "runs"):
            inner = whole.value.get(key)
            if isinstance(inner, list):
                rows = [_checked(value, index, json.dumps(value)) for index, value in enumerate(inner, start=1)]
    yield from rows[skip:]


def _csv(stream: io.BufferedReader, delimiter: str, skip: int) -> Iterator[Row]:
    csv.field_size_limit(MAX_ROW_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader((line.replace("\0", "�") for line in text), delimiter=delimiter)
    header = next(reader, [])
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _refused(reader.line_num, f"not CSV: {error}; the rest of the file is lost", "")
            return
        if not cells:
            continue
        if skip:
            skip -= 1
        elif len(cells) != len(header):
            problem = f"{len(cells)} cells under {len(header)} columns"
            yield _refused(reader.line_num, problem, delimiter.join(cells))
        else:
            yield Row(reader.line_num, dict(zip(header, cells, strict=True)), "", delimiter.join(cells)[:200])


def _parquet(path: Path, skip: int) -> Iterator[tuple[Row, int]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{path}: reading Parquet needs pyarrow", "Run: pip install 'journeyman[parquet]'") from error
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        file = parquet.ParquetFile(path)
        number, size, total = 0, path.stat().st_size, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                number += 1
                if number > skip:
                    row = _parse_text(json.dumps(value, default=str), number)
                    yield row, size * number // total
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}", "Export it again") from error
