"""START HERE. The journal: what of an exchange is not yet a row on disk. One file for each exchange, in memory.

Each piece of an answer is appended by one system call before it is sent to the client. The files lie in a file system
that the kernel keeps in memory, so they survive the process but not the machine, and contents that are not redacted
yet are not written to a disk. A file is removed once its row is written.

A file is a sequence of frames: kind, milliseconds since the request arrived, length, and that many bytes. A process
that is killed while it writes leaves an incomplete frame at the end, which no client has received.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from journeyman.errors import UsageError

Kind = Literal["head", "body", "status", "piece", "end", "reference"]
KINDS: tuple[Kind, ...] = ("head", "body", "status", "piece", "end", "reference")
_FRAME = struct.Struct("<BII")
_MEMORY = ("tmpfs", "ramfs")
_MOST_MS = (1 << 32) - 1


@dataclass(frozen=True)
class Frame:
    """One frame; `ms` counts from the arrival of the request."""

    kind: Kind
    ms: int
    data: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """What a frame of kind head, status or end says."""
        found: dict[str, Any] = json.loads(self.data)
        return found


class ExchangeJournal:
    """The file of one exchange, which is being written.

    Args:
        room: how many bytes the journal may still take; None: no limit.

    Attributes:
        number: of the exchange.
        size: bytes written.
        intact: whether everything could be written; after a failure, nothing more is.
        answered: whether the client has been sent the beginning of an answer.
    """

    def __init__(self, folder: Path, number: int, room: Callable[[], int] | None = None) -> None:
        self.number, self.size, self.intact = number, 0, True
        self.path = folder / f"{number:012d}"
        self.answered = False
        self._begun = time.monotonic()
        self._file, self._room = -1, room
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            self.intact = False

    @property
    def ms(self) -> int:
        """Milliseconds since the request arrived."""
        return min(_MOST_MS, int((time.monotonic() - self._begun) * 1000))

    def note(self, kind: Kind, fields: Mapping[str, Any]) -> None:
        """Appends a frame of fields."""
        self.add(kind, json.dumps(fields).encode())

    def add(self, kind: Kind, data: bytes) -> None:
        """Appends a frame. If that is not possible, `intact` is false from then on, and the answer goes on."""
        if not self.intact:
            return
        if self._room is not None and _FRAME.size + len(data) > self._room():
            self.intact = False
            return
        head = _FRAME.pack(KINDS.index(kind), self.ms, len(data))
        try:
            written = os.writev(self._file, (head, data))
        except OSError:
            written = 0
        self.size += written
        self.intact = written == len(head) + len(data)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def frames(path: Path) -> Iterator[Frame]:
    """The complete frames of a file, which may still be growing."""
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            kind, ms, length = _FRAME.unpack(head)
            data = file.read(length)
            if len(data) < length or kind >= len(KINDS):
                return
            yield Frame(KINDS[kind], ms, data)


def numbers(folder: Path) -> list[int]:
    """The exchanges that have a file, in order."""
    return sorted(int(one.name) for one in folder.iterdir() if one.name.isdecimal()) if folder.is_dir() else []


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}"


@dataclass(frozen=True)
class Place:
    """Where the journal of a folder of rows is.

    Attributes:
        in_memory: whether contents that are not redacted stay off the disk.
    """

    folder: Path
    in_memory: bool


def place_of(rows: Path, asked: str = "") -> Place:
    """The journal's place for this folder of rows; the same for every process.

    Args:
        asked: record.journal: a folder to use; empty: /dev/shm, else XDG_RUNTIME_DIR, else beside the rows.
    """
    name = f"journeyman-{os.getuid()}-{hashlib.sha256(os.fsencode(rows.resolve())).hexdigest()[:16]}"
    tops = [Path(asked)] if asked else [Path("/dev/shm"), Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")]
    for top in tops:
        if top.is_dir() and os.access(top, os.W_OK | os.X_OK) and (_in_memory(top) or asked):
            return Place(top / name, _in_memory(top))
    return Place(rows / ".journal", False)


def made(place: Place) -> Path:
    """The journal's folder, which only this user can open.

    Raises:
        UsageError: another user made it, or it is not a folder.
    """
    try:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.folder.lstat()
    except OSError as error:
        raise UsageError(f"{place.folder}: {error.strerror}", "Set record.journal to a folder in memory") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(
            f"{place.folder}: belongs to somebody else, who could read the journal",
            "Remove it, or set record.journal to another folder in memory",
        )
    place.folder.chmod(0o700)
    return place.folder


def _in_memory(folder: Path) -> bool:
    """Whether the file system that holds the folder is one that the kernel keeps in memory; Linux tells."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    target = str(folder.resolve())
    holding = [(place, kind) for place, kind in mounts if target == place or target.startswith(place.rstrip("/") + "/")]
    return bool(holding) and max(holding, key=lambda one: len(one[0]))[1] in _MEMORY
