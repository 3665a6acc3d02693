"""Makes sure that files are used as they were made: manifests contain their own hash and the hashes of files.

This protects against accidents and careless edits. It is not a signature: somebody who forges a manifest can compute
its hash as well.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from journeyman.artifacts import MANIFEST, hash_of, hash_of_file, write_atomic
from journeyman.config import CONFIG_NAME
from journeyman.errors import ChangedArtifact
from journeyman.foreign import plain
from journeyman.manifests import Stamp

UNFINISHED = "unfinished.json"
CHECKPOINTS = "checkpoints"
"""A subfolder of a stage's folder. It is not part of the stage's result, and checkpoints have their own hashes."""

_M = TypeVar("_M", bound=BaseModel)


def write_manifest(folder: Path, stamp: Stamp, result: BaseModel) -> None:
    """Writes the folder's manifest, including the hash of its content."""
    data = json.loads(json.dumps({"stamp": stamp.model_dump(exclude={"sha256"}), "result": result.model_dump()}))
    data["stamp"]["sha256"] = own_hash(data)
    write_atomic(folder / MANIFEST, manifest_bytes(data))


def manifest_bytes(data: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest's file."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def own_hash(data: Mapping[str, Any]) -> str:
    """The hash of a manifest's content, except for the hash itself."""
    stamp = {key: value for key, value in data["stamp"].items() if key != "sha256"}
    return hash_of({"stamp": stamp, "result": data["result"]})


def result_hash(data: Mapping[str, Any], parts: Sequence[str] = ()) -> str:
    """The part of a manifest that enters a later stage's fingerprint.

    Args:
        parts: the fields of the result that the later stage depends on; none: the whole result, and the hashes of the
            files. A field that is None is left out, so that a new one does not make older results stale.
    """
    if parts:
        result = data["result"]
        return hash_of({"parts": {name: result[name] for name in parts if result.get(name) is not None}})
    return hash_of({"files": data["stamp"]["files"], "result": data["result"]})


def manifest_data(path: Path, stage: str) -> dict[str, Any]:
    """A manifest's JSON.

    Raises:
        ChangedArtifact: it is missing, truncated, empty, another stage's, or was edited after it was made.
    """
    try:
        written = path.read_bytes()
    except OSError as error:
        raise _unusable(path, stage, f"it cannot be read ({error.strerror})") from error
    try:
        data = json.loads(written)
        manifest_bytes(data)  # half a character, which JSON can escape, is in no file's name and in no text
    except (ValueError, RecursionError) as error:
        why = f"truncated or damaged: {error}" if written else "it is empty"
        raise _unusable(path, stage, why) from error
    if not isinstance(data, dict) or not isinstance(data.get("stamp"), dict) or "result" not in data:
        raise _unusable(path, stage, "it contains no stamp and result")
    made_by = data["stamp"].get("stage")
    if made_by != stage:
        raise _unusable(path, stage, f"it is the manifest of {plain(str(made_by), 40)!r}")
    recorded = data["stamp"].get("sha256")
    if recorded is not None and recorded != own_hash(data):
        raise _unusable(path, stage, f"it was changed after {stage} made it: the hash of its content differs")
    return data


def read_manifest(path: Path, stage: str, kind: type[_M]) -> tuple[Stamp, _M]:
    """Stamp and result of a finished stage; raises as manifest_data does, and if this version has other fields."""
    data = manifest_data(path, stage)
    try:
        stamp, result = Stamp.model_validate(data["stamp"]), kind.model_validate(data["result"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        version = plain(str(data["stamp"].get("journeyman")), 40)
        raise _unusable(path, stage, f"made by journeyman {version}: {plain(place, 100)}: {first['msg']}") from error
    outside = next((name for name in stamp.files if _leaves(name)), None)
    if outside is not None:
        raise _unusable(path, stage, f"it names a file outside of the folder: {plain(outside, 100)}")
    return stamp, result


def _leaves(name: str) -> bool:
    """Whether a file's name leads out of the folder whose manifest has it, or is the name of no file."""
    place = PurePosixPath(name)
    return place.is_absolute() or not place.parts or ".." in place.parts or "\0" in name


def _unusable(path: Path, stage: str, why: str) -> ChangedArtifact:
    return ChangedArtifact(f"{path}: not a usable manifest of {stage}: {why}", again(path.parent))


def again(place: Path) -> str:
    """The remedy for a file in `place` that has changed: the folder of a run's stage, or a bundle elsewhere."""
    run = place.parent
    if not (run / CONFIG_NAME).is_file():
        return "Restore it from a backup, or copy it again from the run that made it"
    return f"Restore it, or rerun its stage and the later ones: journeyman run --redo --dir {shlex.quote(str(run))}"


def refuse_link(folder: Path) -> None:
    """Refuses a link in place of a stage's folder, which is renamed and removed as a whole.

    Raises:
        ChangedArtifact: it is a symbolic link.
    """
    if folder.is_symlink():
        place, target = shlex.quote(str(folder)), shlex.quote(str(folder.readlink()))
        raise ChangedArtifact(
            f"{folder}: a link to {folder.readlink()}, not a folder; stages rename and remove their folders",
            f"To keep a run on another disk, move its whole folder; here: rm {place} && mv {target} {place}",
        )


def check_files(folder: Path, stamp: Stamp, names: Iterable[str] | None = None) -> None:
    """Compares files of a finished stage with the hashes that it recorded; all of them if no names are given.

    Raises:
        ChangedArtifact: a file is missing, has changed or was not made by the stage.
    """
    refuse_link(folder)
    for name in stamp.files if names is None else names:
        why = difference(folder / name, stamp.files.get(name), stamp.stage)
        if why:
            raise ChangedArtifact(f"{folder / name}: {why}", again(folder))


def difference(path: Path, recorded: str | None, stage: str) -> str:
    """Why a file is not as the stage made it; "" if it is."""
    if recorded is None:
        return f"not among the files that {stage} made"
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
        if not regular:
            return f"not a regular file, which {stage} made"
        now = hash_of_file(path)
    except FileNotFoundError:
        return f"missing; {stage} made it"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if now == recorded else f"changed after {stage} made it (SHA-256 {recorded[:12]}…, now {now[:12]}…)"


def files_below(folder: Path) -> list[str]:
    """The files that a stage's hashes cover, links included: all but the manifest, marks and checkpoints."""
    found = []
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        folders[:] = sorted(name for name in folders if name != CHECKPOINTS)
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [str(here / name) for name in (*names, *linked)]
    return sorted(name for name in found if name not in (MANIFEST, UNFINISHED))
