"""One journeyman a folder at a time: the lock of a run's folder, and who holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from journeyman.errors import UsageError

_LOCK = ".lock"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One journeyman a folder at a time. The lock names its holder: `host pid`.

    Raises:
        UsageError: another one is at work in the folder, or its file system has no locks.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{root}: another journeyman is at work in this folder", "Wait for it or stop it"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{lock.name}: cannot be locked ({error.strerror})", "Use a folder on a disk of this machine"
            ) from error
        with suppress(OSError):  # a full disk: the lock holds without the name
            lock.truncate(0)
            lock.write(f"{socket.gethostname()} {os.getpid()}")
            lock.flush()
        yield


def is_at_work(root: Path) -> bool:
    """True while a journeyman works in the folder; a process that died holds nothing any more."""
    try:
        with (root / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def worker_in(root: Path) -> tuple[str, int] | None:
    """Host and process of the journeyman at work in the folder; None where there is none, or it did not say."""
    if not is_at_work(root):
        return None
    host, _, pid = (root / _LOCK).read_text().rpartition(" ")
    return (host, int(pid)) if host and pid.isdecimal() else None
