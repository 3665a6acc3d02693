"""Releases: verified copies of bundles with a number, and a pointer to the one that is served.

```
releases/
├── 0001/  0002/     bundles, each complete or absent
└── releases.json    which one is current, and every promotion and rollback so far
```

One file holds the pointer and its history, so that they cannot contradict each other, and it is replaced by a rename,
so that a reader and a process that is killed at any moment see the state before a change or after it. Unlike a symbolic
link, it works on every file system, and in a copy of the folder.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import MANIFEST, read_model
from journeyman.bundles import open_bundle
from journeyman.errors import ChangedArtifact, InputError, UsageError
from journeyman.manifests import BundleManifest, ReleaseRecord
from journeyman.runs import run_of

RECORD = "releases.json"
_FOLDER = "releases"
_LEAST_DIGITS = 4


@dataclass(frozen=True)
class Release:
    """A kept bundle.

    Attributes:
        sha256: see OpenedBundle.sha256.
    """

    number: int
    place: Path
    manifest: BundleManifest
    sha256: str


def releases_of(source: Path) -> Path:
    """Where the releases are, unless the user names a folder.

    Args:
        source: a run, a bundle or a target, beside whose run they are; the folder that contains `releases/`; the
            folder with the releases itself, or one of them.

    Raises:
        UsageError: more than one of these has releases.
    """
    place = run_of(source) or source.resolve()
    beside = place.parent / _FOLDER
    found = {one for one in (place, place / _FOLDER, place.parent, beside) if (one / RECORD).exists()}
    if len(found) > 1:
        one, other, *_ = sorted(found)
        raise UsageError(
            f"{source}: two folders with releases, {one} and {other}", "Name one of them: --releases FOLDER"
        )
    return found.pop() if found else beside


def listing(folder: Path) -> str:
    """The command that lists the releases of a folder, for a shell."""
    return f"journeyman releases --releases {shlex.quote(str(folder))}"


def record_of(folder: Path) -> ReleaseRecord:
    """The pointer and its history; empty if nothing was promoted yet.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return ReleaseRecord(current=None, events=[])
    try:
        found = read_model(path, ReleaseRecord)
    except InputError as error:
        raise InputError(error.what, "Restore it from a backup; the releases themselves are unchanged") from error
    if found.current != (found.events[-1].number if found.events else None):
        raise InputError(f"{path}: its pointer is not what its last event made it", "Restore it from a backup")
    return found


def current(folder: Path) -> Release | None:
    """The promoted release; None if nothing was promoted yet. Its files are not compared: serving does that.

    Raises:
        ChangedArtifact: its manifest is not the one that was promoted.
        InputError: the record or the release is missing or damaged.
    """
    record = record_of(folder)
    return None if record.current is None else release_of(folder, record, record.current)


def kept(folder: Path) -> list[int]:
    """The numbers of the releases in the folder, in order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir())


class Follower:
    """Notices when another release becomes current. A look costs one system call, so it may be taken every second."""

    def __init__(self, folder: Path, known: Release | None = None) -> None:
        """`known`: the release that the caller already uses."""
        self._folder = folder
        self._state: tuple[int, ...] | None = None  # so that a change since `known` was read is not missed
        self._sha256 = None if known is None else known.sha256

    def still(self, served: Release) -> None:
        """Says that the caller uses this one: the one that became current is reported again if it is promoted again."""
        self._sha256 = served.sha256

    def changed(self) -> Release | None:
        """The release that has become current since the last look; None if it is the same, or there is none.

        Raises:
            InputError: the record or the release is damaged; the next look reads it again.
        """
        state = _state(self._folder)
        if state is None or state == self._state:
            return None
        found = current(self._folder)
        self._state = state
        if found is None or found.sha256 == self._sha256:
            return None
        self._sha256 = found.sha256
        return found


def _state(folder: Path) -> tuple[int, ...] | None:
    try:
        found = (folder / RECORD).stat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def place_of_release(folder: Path, number: int) -> Path:
    """Its folder."""
    return folder / f"{number:0{_LEAST_DIGITS}}"


def release_of(folder: Path, record: ReleaseRecord, number: int) -> Release:
    """A release that was promoted; raises as `current` does."""
    place = place_of_release(folder, number)
    if not (place / MANIFEST).is_file():
        raise InputError(
            f"{place}: release {number} is no longer there",
            f"Restore it from a backup, or see what is: {listing(folder)}",
        )
    opened = open_bundle(place)
    promoted = next(event.sha256 for event in reversed(record.events) if event.number == number)
    if opened.sha256 != promoted:
        raise ChangedArtifact(f"{place}: another bundle than the one that was promoted", "Restore it from a backup")
    return Release(number, place, opened.manifest, opened.sha256)
