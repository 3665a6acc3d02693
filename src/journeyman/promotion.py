"""Changes which release is current: promote and roll back. Every bundle is verified before, and every copy after."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from journeyman.artifacts import (
    MANIFEST,
    clone_or_copy,
    disk_error,
    remove_leftovers,
    remove_quietly,
    sync,
    sync_below,
    write_model,
)
from journeyman.bundles import (
    OpenedBundle,
    files_to_serve,
    open_bundle,
    refuse_unevaluated,
    refuse_without_base,
    served_settings,
)
from journeyman.errors import ChangedArtifact, ChangedMeanwhile, InputError, NotDeployable, UsageError
from journeyman.foreign import named, plain
from journeyman.lineage import files_below
from journeyman.locking import locked
from journeyman.manifests import BundleManifest, ReleaseEvent, ReleaseRecord
from journeyman.releases import RECORD, Release, kept, listing, place_of_release, record_of, release_of
from journeyman.verifying import verify


@dataclass(frozen=True)
class Seen:
    """What the user saw when they decided. If it is no longer so, nothing is changed.

    Attributes:
        current: number of the current release; None: nothing was promoted.
        sha256: of the bundle to promote; see OpenedBundle.sha256.
    """

    current: int | None
    sha256: str = ""


def promote(
    source: Path, folder: Path, why: str = "", override: str | None = None, seen: Seen | None = None
) -> Release:
    """Keeps a bundle as a release, if it is not kept yet, and makes it the current one.

    Args:
        source: a run's folder, or a bundle's.
        why: for the history.
        override: the user's reason to promote it without a deploy verdict.
        seen: compared with the bundle, and with the current release while no other process can change it.

    Raises:
        ChangedArtifact: a file of the bundle has changed.
        ChangedMeanwhile: the bundle or the current release is another than `seen`.
        DiskError: the disk is full or the folder cannot be written to; the pointer is as before.
        InputError: there is no bundle, it cannot be served, or the record is damaged.
        NotDeployable: it has no deploy verdict, and there is no override; or merged weights that may not be served.
        UsageError: another process is promoting.
    """
    opened = open_bundle(source)
    if seen is not None:
        if opened.sha256 != seen.sha256:
            raise ChangedMeanwhile(f"{source}: the bundle is another one now", "Look at it again before you promote it")
        _refuse_other(record_of(folder), folder, seen)  # already here, because the comparison of files takes long
    refuse_unevaluated(opened)
    refuse_without_base(opened)
    served_settings(opened)
    files_to_serve(opened)
    _refuse_changed(opened.place)
    refused = why_not_deployable(opened.manifest)
    if refused and override is None:
        raise NotDeployable(
            f"{opened.place}: {refused}",
            f"To promote it anyway: journeyman promote {shlex.quote(str(source))} --releases "
            f'{shlex.quote(str(folder))} --override "reason", on record',
        )
    with _at_work(folder):
        record = record_of(folder)
        _refuse_other(record, folder, seen)
        number = _kept_as(folder, opened.sha256) or _keep(folder, record, opened)
        event = _event("promote", number, record, opened, why, override if refused else None)
        return _pointed(folder, record, event)


def rollback(folder: Path, to: int | None = None, why: str = "", seen: Seen | None = None) -> Release:
    """Makes an earlier release the current one again.

    Args:
        to: its number; None: the one that was current before, of those that are still there. A second rollback goes
            back one more.
        seen: its current release is compared while no other process can change it.

    Raises:
        ChangedArtifact: a file of that release has changed; the pointer is as before.
        ChangedMeanwhile: the current release is another than `seen`.
        DiskError: the disk is full or the folder cannot be written to.
        InputError: there is no such release, or the record is damaged.
        UsageError: there is nothing to go back to, or another process is promoting.
    """
    if not (folder / RECORD).exists():  # before the lock, which would make the folder
        raise UsageError(f"{folder}: nothing was promoted", "Name the folder: journeyman rollback --releases FOLDER")
    see = f"See: {listing(folder)}"
    with _at_work(folder):
        record = record_of(folder)
        _refuse_other(record, folder, seen)
        number = _before(record, kept(folder)) if to is None else to
        if number is None:
            raise UsageError(f"{folder}: there is no earlier release", see)
        if number == record.current:
            raise UsageError(f"{folder}: release {number} is the current one", see)
        if number not in {event.number for event in record.events}:
            raise UsageError(f"{folder}: release {number} was never promoted", see)
        release = release_of(folder, record, number)
        _refuse_changed(release.place)
        return _pointed(folder, record, _event("rollback", number, record, release, why, None))


def why_not_deployable(bundle: BundleManifest) -> str:
    """Why a bundle may be promoted with an override only; '' if its evidence allows it."""
    if bundle.target is not None and bundle.target.why_not is not None:
        return bundle.target.why_not.sentence()
    if bundle.override is not None:
        return f"it was exported despite the verdict ({plain(bundle.override, 100)})"
    if others := bundle.not_deployable:
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


def _refuse_other(record: ReleaseRecord, folder: Path, seen: Seen | None) -> None:
    if seen is not None and record.current != seen.current:
        now = "no release is" if record.current is None else f"release {record.current} is"
        raise ChangedMeanwhile(f"{folder}: {now} current now", "Look again before you change it")


def _refuse_changed(place: Path) -> None:
    if findings := verify(place).findings:
        raise ChangedArtifact(findings[0], "Nothing was promoted", findings[1:])


def _kept_as(folder: Path, sha256: str) -> int | None:
    """The number under which this bundle is kept and unchanged."""
    for number in reversed(kept(folder)):
        try:
            same = open_bundle(place_of_release(folder, number))
        except InputError:
            continue
        if same.sha256 == sha256 and not verify(same.place).findings:
            return number
    return None


def _keep(folder: Path, record: ReleaseRecord, opened: OpenedBundle) -> int:
    """Copies the bundle under a new number; it is complete and compared before it gets its name."""
    number = max([0, *kept(folder), *(event.number for event in record.events)]) + 1
    final = place_of_release(folder, number)
    work = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        _copy(opened.place, work, [*files_below(opened.place), MANIFEST])
        sync_below(work)
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


def _before(record: ReleaseRecord, there: Collection[int]) -> int | None:
    """The release that was current before the current one was promoted; a rollback undoes promotions.

    Args:
        there: the releases that were not removed.
    """
    stack: list[int] = []
    for event in record.events:
        if event.action == "rollback" and event.number in stack:
            while stack[-1] != event.number:
                stack.pop()
        elif event.number not in stack[-1:]:  # otherwise, it was current, and nothing changed
            stack.append(event.number)
    return next((one for one in reversed(stack[:-1]) if one in there and one != record.current), None)


def _event(
    action: str, number: int, record: ReleaseRecord, bundle: OpenedBundle | Release, why: str, override: str | None
) -> ReleaseEvent:
    return ReleaseEvent.model_validate({
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "who": _who(), "action": action, "number": number,
        "before": record.current, "why": why, "override": override, "sha256": bundle.sha256,
        "roles": bundle.manifest.roles, "verdicts": bundle.manifest.verdicts,
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
    return release_of(folder, changed, event.number)
