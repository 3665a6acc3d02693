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

import getpass
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from journeyman.artifacts import (
    MANIFEST,
    clone_or_copy,
    disk_error,
    read_model,
    remove_leftovers,
    remove_quietly,
    sync,
    write_model,
)
from journeyman.bundles import OpenedBundle, open_bundle, refuse_unevaluated, refuse_without_base
from journeyman.errors import ChangedArtifact, InputError, NotDeployable, UsageError
from journeyman.foreign import named, plain
from journeyman.lineage import files_below
from journeyman.locking import locked
from journeyman.manifests import BundleManifest, ReleaseEvent, ReleaseRecord
from journeyman.runs import PLACES
from journeyman.verifying import verify

RECORD = "releases.json"
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
    """Where the releases of a run or bundle are, unless the user names a folder: beside the run."""
    place = source.resolve()
    is_in_run = place.name == PLACES["export"].folder
    return (place.parent.parent if is_in_run else place.parent) / "releases"


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
    return None if record.current is None else _release(folder, record, record.current)


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


def promote(source: Path, folder: Path, why: str = "", override: str | None = None) -> Release:
    """Keeps a bundle as a release, if it is not kept yet, and makes it the current one.

    Args:
        source: a run's folder, or a bundle's.
        why: for the history.
        override: the user's reason to promote it without a deploy verdict.

    Raises:
        ChangedArtifact: a file of the bundle has changed.
        DiskError: the disk is full or the folder cannot be written to; the pointer is as before.
        InputError: there is no bundle, it cannot be served, or the record is damaged.
        NotDeployable: it has no deploy verdict, and there is no override; or merged weights that may not be served.
        UsageError: another process is promoting.
    """
    opened = open_bundle(source)
    refuse_unevaluated(opened)
    refuse_without_base(opened)
    _refuse_changed(opened.place)
    refused = why_not_deployable(opened.manifest)
    if refused and override is None:
        raise NotDeployable(
            f"{opened.place}: {refused}", 'To promote it anyway: journeyman promote --override "reason", on record'
        )
    with _at_work(folder):
        record = record_of(folder)
        number = _kept_as(folder, opened.sha256) or _keep(folder, record, opened)
        event = _event("promote", number, record, opened, why, override if refused else None)
        return _pointed(folder, record, event)


def rollback(folder: Path, to: int | None = None, why: str = "") -> Release:
    """Makes an earlier release the current one again.

    Args:
        to: its number; None: the one that was current before. A second rollback goes back one more.

    Raises:
        ChangedArtifact: a file of that release has changed; the pointer is as before.
        DiskError: the disk is full or the folder cannot be written to.
        InputError: there is no such release, or the record is damaged.
        UsageError: there is nothing to go back to, or another process is promoting.
    """
    with _at_work(folder):
        record = record_of(folder)
        number = _before(record) if to is None else to
        if number is None:
            raise UsageError(f"{folder}: there is no earlier release", "See: journeyman releases")
        if number == record.current:
            raise UsageError(f"{folder}: release {number} is the current one", "See: journeyman releases")
        if number not in {event.number for event in record.events}:
            raise UsageError(f"{folder}: release {number} was never promoted", "See: journeyman releases")
        release = _release(folder, record, number)
        _refuse_changed(release.place)
        opened = open_bundle(release.place)
        return _pointed(folder, record, _event("rollback", number, record, opened, why, None))


def why_not_deployable(bundle: BundleManifest) -> str:
    """Why a bundle may be promoted with an override only; '' if its evidence allows it."""
    if bundle.target is not None and bundle.target.why_not is not None:
        return bundle.target.why_not.sentence()
    if bundle.override is not None:
        return f"it was exported despite the verdict ({plain(bundle.override, 100)})"
    others = {role: verdict for role, verdict in bundle.verdicts.items() if verdict != "deploy"}
    if others:
        return ", ".join(f"{named(role)} has the verdict {verdict!r}" for role, verdict in others.items())
    return ""


@contextmanager
def _at_work(folder: Path) -> Iterator[None]:
    """Only one process changes the folder; what an earlier one left unfinished is removed."""
    try:
        with locked(folder):
            remove_leftovers(folder, below=False)
            yield
    except OSError as error:
        raise disk_error(error, folder) from error


def _state(folder: Path) -> tuple[int, ...] | None:
    try:
        found = (folder / RECORD).stat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _place(folder: Path, number: int) -> Path:
    return folder / f"{number:0{_LEAST_DIGITS}}"


def _refuse_changed(place: Path) -> None:
    if findings := verify(place).findings:
        raise ChangedArtifact(findings[0], "Nothing was promoted", findings[1:])


def _release(folder: Path, record: ReleaseRecord, number: int) -> Release:
    place = _place(folder, number)
    opened = open_bundle(place)
    promoted = next(event.sha256 for event in reversed(record.events) if event.number == number)
    if opened.sha256 != promoted:
        raise ChangedArtifact(f"{place}: another bundle than the one that was promoted", "Restore it from a backup")
    return Release(number, place, opened.manifest, opened.sha256)


def _kept_as(folder: Path, sha256: str) -> int | None:
    """The number under which this bundle is kept and unchanged."""
    for number in reversed(kept(folder)):
        try:
            same = open_bundle(_place(folder, number))
        except InputError:
            continue
        if same.sha256 == sha256 and not verify(same.place).findings:
            return number
    return None


def _keep(folder: Path, record: ReleaseRecord, opened: OpenedBundle) -> int:
    """Copies the bundle under a new number; it is complete and compared before it gets its name."""
    number = max([0, *kept(folder), *(event.number for event in record.events)]) + 1
    final = _place(folder, number)
    work = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        _copy(opened.place, work, [*files_below(opened.place), MANIFEST])
        _refuse_changed(work)
        if open_bundle(work).sha256 != opened.sha256:
            raise ChangedArtifact(f"{opened.place}: replaced while it was being copied", "Run it again")
        work.rename(final)
        sync(folder)
    except OSError as error:
        raise disk_error(error, final) from error
    finally:
        remove_quietly(work)
    return number


def _copy(place: Path, to: Path, names: Sequence[str]) -> None:
    to.mkdir()
    for name in names:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        clone_or_copy(place / name, target)
        shutil.copymode(place / name, target)
        sync(target)
    for below in {(to / name).parent for name in names}:
        sync(below)


def _before(record: ReleaseRecord) -> int | None:
    """The release that was current before the current one was promoted; a rollback undoes promotions."""
    stack: list[int] = []
    for event in record.events:
        if event.action == "rollback" and event.number in stack:
            while stack[-1] != event.number:
                stack.pop()
        else:
            stack.append(event.number)
    return stack[-2] if len(stack) > 1 else None


def _event(
    action: str, number: int, record: ReleaseRecord, opened: OpenedBundle, why: str, override: str | None
) -> ReleaseEvent:
    return ReleaseEvent.model_validate({
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "who": _who(), "action": action, "number": number,
        "before": record.current, "why": why, "override": override, "sha256": opened.sha256,
        "roles": opened.manifest.roles, "verdicts": opened.manifest.verdicts,
    })  # fmt: skip


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name
        return f"{os.getuid()}@{socket.gethostname()}"


def _pointed(folder: Path, record: ReleaseRecord, event: ReleaseEvent) -> Release:
    changed = ReleaseRecord(current=event.number, events=[*record.events, event])
    write_model(folder / RECORD, changed)
    sync(folder)
    return _release(folder, changed, event.number)
