"""Compares the record of looks with the manifests of all evaluations, including superseded ones.

Each look at the same test set gets half the error rate of the one before. That fails if the record contains fewer looks
than a manifest reports, because it was removed or not copied with the run.
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


class ReportedLooks(NamedTuple):
    """The looks at the current test set that an evaluation's manifest reports."""

    manifest: Path
    looks: int
    record: EvidenceFile | None


def refuse_fewer_looks(root: Path) -> None:
    """Verifies that the record contains every look that a manifest of this run reports.

    Raises:
        ChangedArtifact: looks are missing or different, or the record itself is damaged.
    """
    if why := fewer_looks(root):
        raise ChangedArtifact(
            f"{place_to_read(root, LOOKS)}: {why}",
            f"Copy {LOOKS} (.looks in runs of older versions) from the original run; or set another curate.seed for a "
            "fresh test set, and run: journeyman run --redo",
        )


def fewer_looks(root: Path) -> str:
    """Which looks that a manifest reports are missing from the record; "" if none are.

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
    for reported in _reported(root, sealed, result_hash(data)):
        place = reported.manifest.relative_to(root)
        if counted < reported.looks:
            return f"contains {counted} looks at the test set, but {place} reports {reported.looks}"
        if reported.record is not None and (why := difference(root, reported.record)):
            return f"{why} (recorded in {place})"
    return ""


def _reported(root: Path, sealed: str, dataset: str) -> Iterator[ReportedLooks]:
    folder = PLACES["evaluate"].folder
    for path in (root / folder / MANIFEST, *sorted((root / SUPERSEDED).glob(f"{folder}-*/{MANIFEST}"))):
        try:
            data = manifest_data(path, "evaluate") if path.is_file() else None
        except ChangedArtifact:  # superseded because it was damaged; its content is not known
            continue
        reported = _of_manifest(path, data, sealed, dataset) if data else None
        if reported is not None:
            yield reported


def _of_manifest(path: Path, data: dict[str, Any], sealed: str, dataset: str) -> ReportedLooks | None:
    result, inputs = data["result"], data["stamp"].get("inputs")
    if not isinstance(result, dict) or not isinstance(inputs, dict):
        return None
    if result.get("sealed_sha256") is None:  # from an older version, which recorded only the dataset
        of_these, looks = inputs.get(PLACES["curate"].folder) == dataset, result.get("look")
    else:
        of_these, looks = result["sealed_sha256"] == sealed, result.get("looks")
    if not of_these or not isinstance(looks, int):
        return None
    return ReportedLooks(path, looks, _record_of_looks(result.get("evidence")))


def _record_of_looks(listed: object) -> EvidenceFile | None:
    """The record in a manifest; None if it has none, or one in another version's form."""
    for one in listed if isinstance(listed, list) else ():
        try:
            record = EvidenceFile.model_validate(one)
        except ValidationError:
            continue
        if record.file == LOOKS:
            return record
    return None
