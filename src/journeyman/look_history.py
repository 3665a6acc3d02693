"""The record of looks held against the manifests of all evaluations, the superseded ones included.

Each further look at the same sealed rows is judged at half the error of the one before. A record that holds fewer looks
than a manifest tells of, because a copy of the run left it behind or somebody removed it, would make that void.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from journeyman.artifacts import MANIFEST
from journeyman.errors import ChangedArtifact
from journeyman.evidence import LOOKS, difference, place_to_read
from journeyman.inference.sequential_testing import read_looks
from journeyman.lineage import manifest_data, result_hash
from journeyman.manifests import EvidenceFile
from journeyman.runs import PLACES, SEALED
from journeyman.superseded import SUPERSEDED


class Told(NamedTuple):
    """What the manifest of an evaluation says of the looks at the present sealed rows."""

    manifest: Path
    looks: int
    record: EvidenceFile | None


def refuse_fewer_looks(root: Path) -> None:
    """Nothing, where the record holds every look that a manifest of this run tells of.

    Raises:
        ChangedArtifact: it holds fewer, or others; or the record itself is damaged.
    """
    if why := fewer_looks(root):
        raise ChangedArtifact(
            f"{place_to_read(root, LOOKS)}: {why}",
            f"Copy {LOOKS} (of a run that an older version made: .looks) from where the run came from; or take fresh "
            "sealed rows with another curate.seed: journeyman run --redo",
        )


def fewer_looks(root: Path) -> str:
    """Why the record lacks looks that a manifest tells of; "" where it lacks none.

    Raises:
        ChangedArtifact: the record is damaged.
    """
    dataset = root / PLACES["curate"].folder / MANIFEST
    looks = read_looks(place_to_read(root, LOOKS)).looks
    if not dataset.is_file():
        return ""
    data = manifest_data(dataset, "curate")
    sealed = data["stamp"]["files"].get(SEALED)
    counted = sum(look["sealed"] == sealed for look in looks)
    for told in _told(root, sealed, result_hash(data)):
        place = told.manifest.relative_to(root)
        if counted < told.looks:
            return f"holds {counted} looks at the sealed rows, and {place} tells of {told.looks}"
        if told.record is not None and (why := difference(root, told.record)):
            return f"{why} (recorded in {place})"
    return ""


def _told(root: Path, sealed: str, dataset: str) -> Iterator[Told]:
    folder = PLACES["evaluate"].folder
    for path in (root / folder / MANIFEST, *sorted((root / SUPERSEDED).glob(f"{folder}-*/{MANIFEST}"))):
        try:
            data = manifest_data(path, "evaluate") if path.is_file() else None
        except ChangedArtifact:  # set aside because it was damaged: what it said is not known
            continue
        told = _of_manifest(path, data, sealed, dataset) if data else None
        if told is not None:
            yield told


def _of_manifest(path: Path, data: dict[str, Any], sealed: str, dataset: str) -> Told | None:
    result, inputs = data["result"], data["stamp"].get("inputs")
    if not isinstance(result, dict) or not isinstance(inputs, dict):
        return None
    if result.get("sealed_sha256") is None:  # an older version: known by the dataset that it read
        of_these, looks = inputs.get(PLACES["curate"].folder) == dataset, result.get("look")
    else:
        of_these, looks = result["sealed_sha256"] == sealed, result.get("looks")
    if not of_these or not isinstance(looks, int):
        return None
    return Told(path, looks, _record_of_looks(result.get("evidence")))


def _record_of_looks(listed: object) -> EvidenceFile | None:
    """The record in a manifest; None where it has none, or one that another version wrote in another form."""
    for one in listed if isinstance(listed, list) else ():
        try:
            record = EvidenceFile.model_validate(one)
        except ValidationError:
            continue
        if record.file == LOOKS:
            return record
    return None
