"""Files of a run that outlive its stages: how often the sealed rows have judged, and the answers already paid for.

They lie in evidence/, in plain sight, so that a copy of the run takes them along. They grow with every evaluation; its
manifest records how many lines there were and their hash, and any later state must begin with just these lines.
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
"""File → where older versions kept it, in the run's folder."""


def place_to_read(root: Path, file: str) -> Path:
    """Where one of these files is now; nothing is moved."""
    old = root / OLD_NAMES[file]
    return old if old.is_file() and not (root / file).exists() else root / file


def place_to_write(root: Path, file: str) -> Path:
    """The file's place, its folder made; what lies at the old place is moved here first.

    Where both are there, because an older version worked in the folder since, the old file stays: see left_over.

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
    """The file at the old place, where there is one beside the new."""
    old = root / OLD_NAMES[file]
    return old if old.is_file() and (root / file).exists() else None


def recorded(root: Path, file: str) -> EvidenceFile:
    """What a manifest says of the file as it is now; none is a file without lines."""
    data = _read(place_to_read(root, file))
    return EvidenceFile(file=file, lines=data.count(b"\n"), sha256=hashlib.sha256(data).hexdigest())


def difference(root: Path, record: EvidenceFile) -> str:
    """Why the file does not begin with the lines that a manifest recorded; "" where it does."""
    lines = _read(place_to_read(root, record.file)).splitlines(keepends=True)
    if len(lines) < record.lines:
        return f"holds {len(lines)} lines, and evaluate left {record.lines}"
    same = hashlib.sha256(b"".join(lines[: record.lines])).hexdigest() == record.sha256
    return "" if same else f"its first {record.lines} lines are not those that evaluate left"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
