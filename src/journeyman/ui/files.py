"""Opens files below a run folder without following links, and tells their state."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from journeyman.errors import ChangedArtifact, InputError

State = tuple[int, int, int]
"""Inode, size and time of the last change in nanoseconds."""


def state_of(path: Path) -> State | None:
    """The state of a regular file; None if there is none, or a link is in its place."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def state_of_open(file: BinaryIO) -> State:
    found = os.fstat(file.fileno())
    return (found.st_ino, found.st_size, found.st_mtime_ns)


@contextmanager
def opened(root: Path, *parts: str) -> Iterator[BinaryIO]:
    """Opens `root/parts…` to read it. Neither a folder below the root nor the file may be a link.

    Raises:
        ChangedArtifact: one of them is a link, or it is no regular file.
        InputError: it is missing or cannot be read.
    """
    path = root.joinpath(*parts)
    names = [name for part in parts for name in part.split("/")]
    folder = -1
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        number = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if path.is_symlink() or any(root.joinpath(*names[:n]).is_symlink() for n in range(1, len(names))):
            raise ChangedArtifact(
                f"{path}: a link, which the page does not follow", "Replace it by the file"
            ) from error
        raise InputError(f"{path}: {error.strerror}", "See: journeyman status") from error
    finally:
        if folder >= 0:
            os.close(folder)
    with open(number, "rb") as file:  # noqa: PTH123 (a descriptor)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ChangedArtifact(f"{path}: not a regular file", "Remove it")
        yield file


def lines_of(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each complete line from an offset on; one without an end is not complete."""
    file.seek(start)
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield start, line
        start += len(line)
