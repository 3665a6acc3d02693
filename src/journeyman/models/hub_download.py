"""Downloads a model from a hub to journeyman's cache: resolves the name, checks access and space, gets the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
from huggingface_hub.errors import OfflineModeIsEnabled

from journeyman.artifacts import disk_error
from journeyman.errors import DiskFull, InputError, Interrupted, UsageError
from journeyman.foreign import plain
from journeyman.locking import is_at_work, locked
from journeyman.models.hub_choice import chosen
from journeyman.models.hub_client import Hub, HubRefused, Listing, NotAHub, is_offline
from journeyman.models.hub_errors import explained, offline
from journeyman.models.hub_transfer import fetch
from journeyman.models.names import MAIN, ModelName
from journeyman.models.pins import HubFile, Pin, Shelf
from journeyman.protocols import Reporter

_T = TypeVar("_T")
_MOST_HTTP_BYTES = 50_000_000_000
"""The hub sends no larger file over plain HTTP (MAX_HTTP_DOWNLOAD_SIZE in huggingface_hub 2.4)."""
_MOST_READ_BYTES = 1 << 26
"""The largest index of shards that is read."""


def download(name: ModelName, shelf: Shelf, reporter: Reporter) -> Path:
    """Downloads the model that a name of a repo means, or what is missing of it; raises as find_model does."""
    if is_offline():
        raise offline(name)
    return _Download(name, shelf, reporter).model()


class _Download:
    def __init__(self, name: ModelName, shelf: Shelf, reporter: Reporter) -> None:
        self._name, self._shelf, self._reporter = name, shelf, reporter
        self._hub = Hub(name.repo_id, self._look)
        self._just_read = 0

    def model(self) -> Path:
        shelf = self._shelf
        listing = None if shelf.pin() else self._listing()  # before a folder is made for a name that is none
        try:
            shelf.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, shelf.folder) from error
        try:
            with locked(shelf.folder):
                pin = shelf.pin() or self._resolved(listing or self._listing())
                found = shelf.model(pin)  # another process may have finished it in the meantime
                return found or self._completed(pin)
        except UsageError as error:
            if not is_at_work(shelf.folder):
                raise
            raise UsageError(
                f"{shelf.folder}: another journeyman is downloading {self._name.repo_id}", "Wait for it or stop it"
            ) from error

    def _look(self) -> None:
        if self._reporter.stop_requested:
            raise Interrupted("stopped during the download of the base", "Run it again to continue")

    def _listing(self) -> Listing:
        return self._asked(lambda: self._hub.listing(self._name.revision or MAIN))

    def _resolved(self, listing: Listing) -> Pin:
        """Chooses the files that the name means, and asks the hub whether they may be read; records nothing yet."""
        name, hub = self._name, self._hub
        folder, files = chosen(name, hub.page, listing.files, lambda file: self._content(listing.commit, file))
        largest = max(files, key=lambda file: file.size)
        shown = plain(largest.name, 160)
        if largest.size > _MOST_HTTP_BYTES:
            raise InputError(
                f"{hub.page}: {shown} has {_gb(largest.size)}, and the hub sends files of more than "
                f"{_gb(_MOST_HTTP_BYTES)} only to its own program",
                f"Download it to Hugging Face's cache, where it is found: {name.command()}",
            )
        named = self._asked(lambda: hub.check_access(listing.commit, largest), largest.name)
        if named and named != largest.blob:
            raise InputError(
                f"{hub.page}: the hub names two hashes for {shown}: {largest.blob[:16]}… and {plain(named[:16])}…",
                "Check HF_ENDPOINT, or run it again later",
            )
        revision = name.revision or MAIN
        return Pin(
            repo=name.repo_id, revision=revision, commit=listing.commit, endpoint=hub.endpoint, folder=folder,
            files=tuple(files),
        )  # fmt: skip

    def _content(self, commit: str, file: HubFile) -> bytes:
        if file.size > _MOST_READ_BYTES:
            raise InputError(f"{self._hub.page}: {file.name} has {file.size:,} bytes", "Use a .gguf file of this model")
        if not self._shelf.downloaded(file):
            self._fetch(commit, file, lambda at: None)
            self._just_read += file.size
        return self._shelf.blob(file).read_bytes()

    def _completed(self, pin: Pin) -> Path:
        """Downloads the files that are missing, small ones first; records the pin before the first byte."""
        shelf, reporter = self._shelf, self._reporter
        here = sum(shelf.bytes_of(file) for file in pin.files)
        self._check_space(pin.size - here)
        shelf.write(pin)
        count = f"{len(pin.files)} files, " if len(pin.files) > 1 else ""
        begun = f"; {_gb(here)} of it are already there" if here > self._just_read else ""
        reporter.say(
            f"downloading {pin.repo} from {self._hub.endpoint}, revision {pin.revision} (commit {pin.commit[:12]}): "
            f"{count}{_gb(pin.size)}, to {shelf.folder}{begun}"
        )
        reporter.begin("download", pin.size, "bytes")
        done = 0
        for file in sorted(pin.files, key=lambda file: file.size):
            if not shelf.downloaded(file):
                self._fetch(pin.commit, file, self._telling(done, file))
            shelf.link(pin, file)
            done += file.size
            reporter.advance(done, plain(file.name, 60))
        reporter.say(f"downloaded {pin.repo}; all files have the hashes that the hub lists")
        found = shelf.model(pin)
        assert found is not None, "all files are there"
        return found

    def _telling(self, before: int, file: HubFile) -> Callable[[int], None]:
        """Reports the bytes of a file as those of the whole download."""
        return lambda at: self._reporter.advance(before + at, plain(file.name, 60))

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._shelf.folder).free
        if needed > free:
            raise DiskFull(
                f"base.model: {self._name.repo_id}: the download needs {_gb(needed)}, and {self._shelf.folder} has "
                f"{_gb(free)} free",
                "Free some space, or set XDG_CACHE_HOME to a folder on another disk",
            )

    def _fetch(self, commit: str, file: HubFile, tell: Callable[[int], None]) -> None:
        target = self._shelf.blob(file)
        self._asked(lambda: fetch(self._hub, commit, file, target, tell, self._look), file.name)

    def _asked(self, ask: Callable[[], _T], file: str = "") -> _T:
        try:
            return ask()
        except (httpx.HTTPError, NotAHub, OfflineModeIsEnabled) as error:
            if isinstance(error, HubRefused) and error.reason == "RevisionNotFound" and self._shelf.record.is_file():
                raise InputError(
                    f"base.model: {self._name.repo_id}: {self._hub.endpoint} no longer has the commit that it was "
                    "pinned to",
                    f"Remove {self._shelf.record} to take the current one",
                ) from error
            raise explained(error, self._hub, self._name, file) from error


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10_000_000 else f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size:,} B"
