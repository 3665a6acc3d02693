"""What was downloaded under a name: a record that pins the name to a commit and its files to their hashes.

In journeyman's cache, a repo has the layout of Hugging Face's: `snapshots/COMMIT/FILE` is a link to `blobs/HASH`. The
record is next to the snapshots, in `pins/`. It is written before the first byte of the model is downloaded, so that an
interrupted download continues with the same commit; a name is complete when all of its files have their size.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from journeyman.artifacts import disk_error, read_model, write_atomic, write_model
from journeyman.errors import InputError
from journeyman.foreign import file_part, plain
from journeyman.models.caches import own_cache, repo_in_hub
from journeyman.models.names import MAIN, ModelName

_STRICT = ConfigDict(extra="forbid", frozen=True)


class HubFile(BaseModel):
    """A file of a repo.

    Attributes:
        name: its path in the repo.
        size: in bytes.
        sha256: of its content, for files in large file storage (LFS); otherwise "".
        git: for other files, its hash in Git: SHA-1 of `blob SIZE`, a zero byte and the content.
    """

    model_config = _STRICT
    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    git: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""

    @property
    def blob(self) -> str:
        """The hash that identifies the content."""
        return self.sha256 or self.git


class Pin(BaseModel):
    """The record of a download.

    Attributes:
        repo: PUBLISHER/REPO.
        revision: the branch, tag or commit that was asked for.
        commit: the commit that it was when it was asked for.
        endpoint: the URL of the hub.
        folder: True if the model is the folder of the snapshot; otherwise it is the first of `files`.
        files: all files of the model.
    """

    model_config = _STRICT
    repo: str
    revision: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    endpoint: str
    folder: bool
    files: Annotated[tuple[HubFile, ...], Field(min_length=1)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Shelf:
    """The place of a repo in journeyman's cache.

    Attributes:
        folder: the repo's folder; may be missing.
    """

    def __init__(self, name: ModelName) -> None:
        self.folder = repo_in_hub(own_cache(), name)
        revision = name.revision or MAIN
        what = f":{name.tag.lower()}" if name.tag else f"/{name.file}" if name.file else ""
        self.record = self.folder / "pins" / f"{file_part(revision + what)}.json"

    def pin(self) -> Pin | None:
        """The record of this name; None if there is none.

        Raises:
            InputError: it is damaged.
            DiskError: it cannot be read.
        """
        try:
            return read_model(self.record, Pin) if self.record.is_file() else None
        except InputError as error:
            raise InputError(
                error.what, f"Remove {self.record}; the next run asks the hub again, and keeps what is there"
            ) from error
        except OSError as error:
            raise disk_error(error, self.record) from error

    def write(self, pin: Pin) -> None:
        """Records the pin.

        Raises:
            DiskError: the disk is full or the folder cannot be written to.
        """
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "refs").mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        if pin.revision != pin.commit:
            write_atomic(self.folder / "refs" / pin.revision, pin.commit.encode())
        write_model(self.record, pin)

    def blob(self, file: HubFile) -> Path:
        return self.folder / "blobs" / file.blob

    def downloaded(self, file: HubFile) -> bool:
        """True if the content is there, under any commit."""
        blob = self.blob(file)
        return blob.is_file() and blob.stat().st_size == file.size

    def bytes_of(self, file: HubFile) -> int:
        """How many bytes of the content are there."""
        if self.downloaded(file):
            return file.size
        part = unfinished(self.blob(file))
        return min(part.stat().st_size, file.size) if part.is_file() else 0

    def place(self, pin: Pin, file: HubFile) -> Path:
        """Where a file of the model is, or will be."""
        return self.folder / "snapshots" / pin.commit / file.name

    def has(self, pin: Pin, file: HubFile) -> bool:
        """True if the file is there, with its size; its hash was compared when it was downloaded."""
        place = self.place(pin, file)
        return place.is_file() and place.stat().st_size == file.size

    def link(self, pin: Pin, file: HubFile) -> None:
        """Puts the downloaded file in its place in the snapshot.

        Raises:
            DiskError: the disk is full or the folder cannot be written to.
        """
        place = self.place(pin, file)
        staged = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            staged.unlink(missing_ok=True)
            staged.symlink_to(os.path.relpath(self.blob(file), place.parent))
            staged.replace(place)
        except OSError as error:
            raise disk_error(error, place) from error

    def model(self, pin: Pin) -> Path | None:
        """The model of the pin, the folder or the first file; None if a file is missing or has another size."""
        if not all(self.has(pin, file) for file in pin.files):
            return None
        return self.folder / "snapshots" / pin.commit if pin.folder else self.place(pin, pin.files[0])


def unfinished(blob: Path) -> Path:
    """The file with the bytes so far of a download."""
    return blob.with_name(f"{blob.name}.incomplete")


def is_safe(name: str) -> bool:
    """True if a file's name in a repo is also one below a folder: it leads nowhere else and acts in no terminal."""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and str(path) == name and not path.is_absolute() and ".." not in path.parts
        and "\\" not in name and plain(name) == name
    )  # fmt: skip
