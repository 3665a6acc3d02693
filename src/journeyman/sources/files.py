"""Finds log files and reads their rows: JSON lines, JSON documents, CSV and Parquet, plain, compressed or rotated.

Memory does not grow with the file: one row is in memory at a time, and rows longer than 16 MiB are rejected. If part of
a file cannot be read, a row says so; the other files are read anyway.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, cast

from journeyman.artifacts import expanded
from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.reasons import files as why
from journeyman.sources.documents import documents_of, is_document, lines_of
from journeyman.sources.nearby import nothing_found
from journeyman.sources.opening import CHUNK, COMPRESSED, DAMAGED, opened, recoded
from journeyman.sources.rows import Row, parse_line, refused
from journeyman.sources.session_files import MAX_SESSION_BYTES, SESSION_NAMES, beside, refused_name, session_format
from journeyman.sources.spreadsheet import csv_rows, parquet_rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".log", ".txt", ".zip", ".traj", ".eval")
_ROTATED = re.compile(r"([.\-_]\d{1,3}|[.\-_]\d{4}-?\d\d-?\d\d([T.\-_]?\d{2,6})*|\.(old|bak|prev))$")


class Source(NamedTuple):
    """A log file and the name that identifies its rows: its path below the folder that data.sources names."""

    name: str
    path: Path


def log_sources(root: Path, entries: Sequence[str]) -> list[Source]:
    """The files that the entries of data.sources name, each once and under a unique name.

    A file's name is its path below the folder, its path below the part of a glob before the first wildcard, or its bare
    name. If that gives two files the same name, all files are named by their paths from `root`.

    Raises:
        UsageError: an entry matches nothing.
    """
    found: dict[Path, str] = {}
    if not entries:
        raise nothing_found("[]", root, "the list is empty", is_log, root)
    for entry in entries:
        top = _top(root, entry)
        for path in log_files(root, entry):
            found.setdefault(path.resolve() if path.exists() else path, _below(path, top))
    if len(set(found.values())) < len(found):
        found = {path: _as_text(Path(os.path.relpath(path, root.resolve()))) for path in found}
    return [Source(name, path) for path, name in found.items()]


def sources_of(paths: Iterable[Path]) -> list[Source]:
    """Sources for files that are separate entries."""
    return log_sources(Path(), [str(path) for path in paths])


def _top(root: Path, entry: str) -> Path:
    path = root / expanded(entry)
    if path.is_dir():
        return path
    fixed = itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), path.parts[:-1])
    return path.parent if path.exists() else Path(*fixed)


def _below(path: Path, top: Path) -> str:
    return _as_text(path.relative_to(top) if path.is_relative_to(top) else Path(path.name))


def _as_text(path: Path) -> str:
    r"""The path as valid Unicode: bytes of a name that are not UTF-8 become `\xff`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def log_files(root: Path, name: str) -> list[Path]:
    """The files that one entry of data.sources names: a file, a folder or a glob, below `root`.

    Raises:
        UsageError: nothing is there, or something that is not a file: a pipe, a device, a socket.
    """
    if not name.strip():
        raise nothing_found(name, root, "the entry is empty", is_log, root)
    path = root / expanded(name)
    _refuse_special(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and is_log(p))
        if not found:
            why = f"no log file in this folder or below it (names end in {' '.join(SUFFIXES)})"
            raise nothing_found(name, path, why, is_log, root)
        return found
    if any(sign in name for sign in "*?[") and not path.exists():
        anchor = Path(path.anchor)
        found = sorted(p for p in anchor.glob(str(path.relative_to(anchor))) if p.is_file())
        if not found:
            raise nothing_found(name, path, "matches no file", is_log, root)
        return found
    return [path]


def require_logs(root: Path, entries: Sequence[str]) -> None:
    """Refuses entries of data.sources that match nothing.

    Raises:
        UsageError: with what was looked for, where, and which logs are nearby.
    """
    if not entries:
        raise nothing_found("[]", root, "the list is empty", is_log, root)
    for entry in entries:
        for path in log_files(root, entry):
            if not path.exists():
                raise nothing_found(entry, path, "no such file or folder", is_log, root)


_SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def _refuse_special(path: Path) -> None:
    try:
        what = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return  # a missing file is reported when it is read
    if what is not None:
        raise UsageError(
            f"data.sources: {path}: {what}, not a file: logs are read more than once, and hashed",
            'Store the log in a file, or pipe it in with data.sources = ["-"]',
        )


def bare_name(name: str) -> str:
    """The name without suffixes of compression and rotation: app.jsonl of app.jsonl.2026-03-01.gz."""
    before = None
    while before != name:
        before = name
        for suffix in COMPRESSED:
            name = name.removesuffix(suffix)
        name = _ROTATED.sub("", name)
    return name


def is_log(path: Path) -> bool:
    """Whether a file's name is that of a log: only such files of a folder are read."""
    return bare_name(path.name.lower()).endswith(SUFFIXES) and not path.name.startswith(".")


def skipped_files(root: Path, entries: Sequence[str]) -> dict[str, int]:
    """Files in the folders of data.sources whose names are not those of logs → their sizes in bytes."""
    folders = [path for entry in entries if (path := root / expanded(entry)).is_dir()]
    return {
        _below(path, folder): path.stat().st_size
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_log(path) and not path.name.startswith(".")
    }


def read_file(path: Path, skip: int = 0, encoding: str = "auto") -> Iterator[tuple[Row, int]]:
    """Yields every non-blank row after the first `skip`, with the number of file bytes read so far.

    A damaged file yields what could be recovered, then a row without a value that says where it ended.

    Raises:
        UsageError: the file is missing or must not be read.
    """
    _refuse_special(path)
    rows, done, last = skip, 0, 0
    try:
        for row, done in _rows_of(path, skip, encoding):
            rows, last = rows + 1, row.line
            yield row, done
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", "Set data.sources in journeyman.toml to your log files") from error
    except (*DAMAGED, zipfile.BadZipFile, RuntimeError) as error:
        yield refused(last + 1, why.FileDamaged(plain(str(error), 120), rows), ""), done
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", "Make the file readable and run the command again"
        ) from error


def _rows_of(path: Path, skip: int, encoding: str) -> Iterator[tuple[Row, int]]:
    name = bare_name(path.name.lower())
    if (problem := refused_name(name)) and path.is_file():
        yield from [(refused(1, problem, path.name), path.stat().st_size)][skip:]
    elif name.endswith(".parquet"):
        yield from parquet_rows(path, skip)
    elif name.endswith(".zip") or zipfile.is_zipfile(path):
        yield from itertools.islice(_zip(path, encoding), skip, None)
    else:
        with opened(path, encoding) as (stream, raw):
            session = session_format(stream.peek(1 << 16))
            rows = stream_rows(stream, name, skip) if session is None else _session(stream, session, path, skip)
            for row in rows:
                yield row, raw.tell()


def _session(stream: io.BufferedReader, name: str, path: Path, skip: int) -> Iterator[Row]:
    """Reads a file that is one session as one row."""
    raw = stream.read(MAX_SESSION_BYTES + 1)
    shown = raw[:200].decode("utf-8", errors="replace").encode("utf-8", "replace").decode()
    row = Row(1, None, None, shown, raw, session=name, about=beside(path))
    if len(raw) > MAX_SESSION_BYTES:
        row = refused(1, why.SessionTooLong(SESSION_NAMES[name], MAX_SESSION_BYTES >> 20), raw)
    yield from [row][skip:]


def stream_rows(stream: io.BufferedReader, name: str, skip: int) -> Iterator[Row]:
    """The rows of a UTF-8 stream; name and beginning of the file show if it is CSV, JSON documents or lines."""
    if name.endswith((".csv", ".tsv")):
        return csv_rows(stream, name.endswith(".tsv"), skip)
    if name.endswith(".traj"):
        name = f"{name}.json"
    if is_document(stream, name):
        return documents_of(stream, skip)
    return lines_of(stream, skip)


def _zip(path: Path, encoding: str) -> Iterator[tuple[Row, int]]:
    """Reads the log files of an archive one after the other; each other file in it is named in a rejected row."""
    with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if not is_log(Path(member.filename)) or bare_name(member.filename.lower()).endswith((".zip", ".parquet")):
                found: Iterator[Row] = iter([refused(1, why.NotALogFile(member.file_size), "")])
                yield from _of_member(found, member.filename, raw)
            else:
                with archive.open(member) as inside:
                    stream = recoded(io.BufferedReader(cast(io.RawIOBase, inside), CHUNK), encoding)
                    name = bare_name(member.filename.lower())
                    yield from _of_member(stream_rows(stream, name, 0), member.filename, raw)


def _of_member(found: Iterator[Row], member: str, raw: IO[bytes]) -> Iterator[tuple[Row, int]]:
    for row in found:
        yield replace(row, member=member), raw.tell()


__all__ = [
    "SUFFIXES",
    "Row",
    "Source",
    "is_log",
    "log_files",
    "log_sources",
    "parse_line",
    "read_file",
    "require_logs",
    "skipped_files",
    "sources_of",
    "stream_rows",
]
