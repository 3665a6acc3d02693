"""The lock of a run's folder, which allows one journeyman at a time, and who holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from journeyman.artifacts import disk_error
from journeyman.errors import UsageError

LOCK = ".lock"


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Waits until no other process changes the file, for changes that take an instant. It locks a file next to it.

    Raises:
        UsageError: the file system has no locks.
        DiskError: the folder is missing or cannot be written to.
    """
    try:
        lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        raise disk_error(error, path) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _without_locks(lock.name, error) from error
        yield


def _without_locks(name: str, error: OSError) -> UsageError:
    return UsageError(f"{name}: cannot be locked ({error.strerror})", "Use a folder on a local disk")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Locks the folder; the lock file names its holder as `host pid`.

    Raises:
        UsageError: another journeyman is running in the folder, or the file system has no locks.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{root}: another journeyman is running in this folder", "Wait for it or stop it"
            ) from error
        except OSError as error:
            raise _without_locks(lock.name, error) from error
        with suppress(OSError):  # on a full disk, the lock works without the name
            lock.truncate(0)
            lock.write(f"{socket.gethostname()} {os.getpid()}")
            lock.flush()
        yield


def is_at_work(root: Path) -> bool:
    """True while a journeyman is running in the folder; a process that has died no longer holds the lock.

    Raises:
        DiskError: the lock cannot be read, for example that of another user.
        UsageError: the file system has no locks.
    """
    path = root / LOCK
    try:
        with open(path, opener=_without_waiting) as lock:
            return _is_held(lock, path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, path) from error


def _is_held(lock: TextIO, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise _without_locks(str(path), error) from error
    return False


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in its place would wait for a writer


def worker_in(root: Path) -> tuple[str, int] | None:
    """Host and process id of the journeyman running in the folder; None if there is none, or the lock does not say."""
    if not is_at_work(root):
        return None
    host, _, pid = (root / LOCK).read_text().rpartition(" ")
    return (host, int(pid)) if host and pid.isdecimal() else None
