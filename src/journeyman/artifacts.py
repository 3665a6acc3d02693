"""Files that are either complete or absent: atomic writes, JSON lines, hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import zstandard
from pydantic import BaseModel, ValidationError

from journeyman.errors import DiskError, DiskFull, InputError, Unwritable
from journeyman.zst import ZstdFile

MANIFEST = "manifest.json"
ADAPTER_FILE = "adapter.gguf"
_Model = TypeVar("_Model", bound=BaseModel)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
_ALMOST_NOTHING = 1 << 16
_LEFTOVER = re.compile(r"\.(.+\.\d+\.tmp|tmp-\d+-\d+)")


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file next to the target, syncs and renames it: a reader sees either the old file or the new one.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    with complete_or_absent(path) as staged:
        staged.write_bytes(data)


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """A place next to a file in which a library writes it: synced and renamed at the end, removed after an error.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield staged
        sync(staged)
        staged.replace(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        remove_quietly(staged)


def disk_error(error: OSError, path: Path) -> DiskError:
    """An OSError as a DiskError with the path and a remedy."""
    if error.errno in _FULL or (error.errno is None and _is_full(path)):  # numpy reports short writes without a code
        return DiskFull(f"{path}: {_how_full(error, path)}", "Free some space and run it again")
    kind = Unwritable if error.errno in _REFUSED else DiskError
    return kind(f"{path}: {error.strerror or error}", "Make the folder writable, or use another one")


def is_disk_error(error: OSError) -> bool:
    """True if the error comes from the disk or its permissions, as opposed to a network or a process."""
    return error.errno in (*_FULL, *_REFUSED, errno.EIO)


def _is_full(path: Path) -> bool:
    place = next((one for one in path.parents if one.exists()), None)
    return place is not None and shutil.disk_usage(place).free < _ALMOST_NOTHING


def _how_full(error: OSError, path: Path) -> str:
    if error.errno == errno.EDQUOT:
        return "your disk quota is used up"
    place = next((one for one in path.parents if one.exists()), None)
    if place is None:  # for example, a folder that was deleted in the meantime
        return "the disk is full"
    return f"the disk is full ({shutil.disk_usage(place).free / 1e6:.0f} MB free)"


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_below(folder: Path) -> None:
    """Waits until a folder and everything in it is on disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            if not (Path(place) / name).is_symlink():
                sync(Path(place) / name)
        sync(Path(place))


def replace_folder(folder: Path, made: Path) -> None:
    """Puts a finished folder, next to it, into a folder's place, which need not exist.

    The new one is on disk before, and the old one is removed afterwards. A kill between two renames leaves both under
    names that remove_leftovers knows.

    Raises:
        OSError: a file cannot be synced or renamed; the old folder is in its place.
    """
    sync_below(made)
    aside = folder.with_name(f".{folder.name}.old.{os.getpid()}.tmp")
    there = folder.exists()
    if there:
        folder.rename(aside)
    try:
        made.rename(folder)
    except BaseException:
        if there:
            aside.rename(folder)
        raise
    sync(folder.parent)
    remove_quietly(aside)


def remove_quietly(path: Path) -> None:
    """Removes a file or folder of ours; a failure to do so must not hide the error that led here."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, below: bool) -> None:
    """Removes files that a killed process had not finished writing (`.NAME.PID.tmp`, `.tmp-STEP-PID`).

    Args:
        below: in subfolders as well.
    """
    for path in folder.rglob(".*") if below else folder.glob(".*"):
        if is_leftover(path):
            remove_quietly(path)


def is_leftover(path: Path) -> bool:
    """Whether a process that is still writing it, or was killed, gave it its name; see remove_leftovers."""
    return _LEFTOVER.fullmatch(path.name) is not None


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", "Run the stage that makes it: journeyman run") from error
    except (ValueError, RecursionError) as error:
        why = "empty" if not path.stat().st_size else f"not valid JSON: {error}"
        raise InputError(f"{path}: {why}", "Restore the file, or run journeyman run --redo") from error


def write_model(path: Path, model: BaseModel) -> None:
    write_atomic(path, (model.model_dump_json(indent=2) + "\n").encode())


def read_model(path: Path, kind: type[_Model]) -> _Model:
    """Reads a single record, such as a manifest; raises InputError if a field is unknown or missing."""
    data = read_json(path)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {place}: {first['msg']}", "Made by another version? journeyman run --redo"
        ) from error


def write_rows(path: Path, rows: Iterable[BaseModel]) -> int:
    """Writes JSON lines atomically, compressed if the name ends in .zst; returns their number."""
    count = 0
    with complete_or_absent(path) as staged, staged.open("wb") as raw, _compressed(raw, path) as out:
        for row in rows:
            out.write(row_bytes(row))
            count += 1
    return count


def either(folder: Path, name: str, older: str) -> Path:
    """The file of that name, or the one with the name that an older version used."""
    return folder / (name if (folder / name).is_file() or not (folder / older).is_file() else older)


def row_bytes(row: BaseModel) -> bytes:
    """A row as one JSON line, without fields that have their default value."""
    return row.model_dump_json(exclude_defaults=True).encode() + b"\n"


@contextmanager
def _compressed(raw: Any, path: Path) -> Iterator[Any]:
    if path.suffix != ".zst":
        yield raw
        return
    with zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) as out:
        yield out


def read_rows(path: Path, kind: type[_Model]) -> Iterator[_Model]:
    """Reads JSON lines that write_rows wrote.

    Raises:
        InputError: no such file, a row that is not a `kind`, or a compressed stream that is truncated or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", "Run the stage that makes it: journeyman run")
    number, remedy = 0, "Changed by hand? journeyman run --redo"
    try:
        with path.open("rb") as raw:
            stream: Any = io.BufferedReader(ZstdFile(raw), 1 << 17) if path.suffix == ".zst" else raw
            for number, line in enumerate(stream, start=1):  # noqa: B007 (used in the errors)
                yield kind.model_validate_json(line)
    except ValidationError as error:
        raise InputError(f"{path}:{number}: {error.errors()[0]['msg']}", remedy) from error
    except (EOFError, zstandard.ZstdError) as error:
        raise InputError(f"{path}: damaged after row {number}: {error}", remedy) from error


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def expanded(name: str) -> Path:
    """A path as the user wrote it, with `~` expanded.

    Raises:
        InputError: `~` cannot be expanded, because neither HOME nor the system names a home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name!r}: this process has no home folder", "Set HOME, or write the full path") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex; read in blocks, so that memory use does not depend on its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file, cached in this process until the file changes, because bases have gigabytes."""
    found = path.stat()
    return _hashed(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@cache
def _hashed(path: Path, state: tuple[int, ...]) -> str:
    return sha256_of(path)


_FICLONE = 0x40049409


def clone_or_copy(source: Path, target: Path) -> None:
    """Copies a file; the copy shares blocks with the source (copy-on-write) if the file system supports that.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    try:
        with source.open("rb") as old, target.open("wb") as new:
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            except OSError:  # a different file system, or one without copy-on-write
                shutil.copyfileobj(old, new, 1 << 20)
    except OSError as error:
        raise disk_error(error, target) from error
