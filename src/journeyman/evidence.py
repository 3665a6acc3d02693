"""Files of a run that outlive its stages: the record of looks at the test set, and the response cache.

They are in evidence/, where they are visible, so that a copy of the run includes them. They grow with every evaluation.
Its manifest records the number of lines and their hash, and any later state must begin with exactly these lines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from journeyman.artifacts import disk_error
from journeyman.manifests import EvidenceFile

FOLDER = "evidence"
LOOKS = f"{FOLDER}/looks.jsonl"
RESPONSES = f"{FOLDER}/response-cache.jsonl"
OLD_NAMES = {LOOKS: ".looks", RESPONSES: ".answers"}
"""File → its name in older versions, relative to the run's folder."""


def place_to_read(root: Path, file: str) -> Path:
    """Where one of these files currently is; nothing is moved."""
    old = root / OLD_NAMES[file]
    return old if old.is_file() and not (root / file).exists() else root / file


def place_to_write(root: Path, file: str) -> Path:
    """The file's path; creates its folder and moves the file from its old place first.

    If both exist, because an older version has used the folder since, the old file stays: see left_over.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    place, old = root / file, root / OLD_NAMES[file]
    try:
        place.parent.mkdir(exist_ok=True)
        if old.is_file() and not place.exists():
            old.rename(place)
    except OSError as error:
        raise disk_error(error, place) from error
    return place


def left_over(root: Path, file: str) -> Path | None:
    """The file at its old place, if there is also one at the new place."""
    old = root / OLD_NAMES[file]
    return old if old.is_file() and (root / file).exists() else None


def recorded(root: Path, file: str) -> EvidenceFile:
    """The manifest's record of the file in its current state; a missing file counts as an empty one."""
    data = _read(place_to_read(root, file))
    return EvidenceFile(file=file, lines=data.count(b"\n"), sha256=hashlib.sha256(data).hexdigest())


def difference(root: Path, record: EvidenceFile) -> str:
    """Why the file does not begin with the lines that a manifest recorded; "" if it does."""
    lines = _read(place_to_read(root, record.file)).splitlines(keepends=True)
    if len(lines) < record.lines:
        return f"contains {len(lines)} lines, but evaluate wrote {record.lines}"
    same = hashlib.sha256(b"".join(lines[: record.lines])).hexdigest() == record.sha256
    return "" if same else f"its first {record.lines} lines are not those that evaluate wrote"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
