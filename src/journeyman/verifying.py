"""`journeyman verify`: compares every file of a run or bundle with its recorded hash, and each stage with its inputs.

It cannot detect a file that was forged together with its manifest and everything made from it. See lineage.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journeyman import evidence
from journeyman.artifacts import MANIFEST, hash_of_file, is_leftover
from journeyman.checksum_lines import read_lines
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import ChangedArtifact, JourneymanError, UsageError
from journeyman.evidence import LOOKS, RESPONSES, left_over, place_to_read
from journeyman.foreign import plain
from journeyman.inference.sequential_testing import read_looks
from journeyman.lineage import (
    CHECKPOINTS,
    UNFINISHED,
    difference,
    files_below,
    manifest_bytes,
    manifest_data,
    read_manifest,
    refuse_link,
    result_hash,
)
from journeyman.locking import LOCK, is_at_work
from journeyman.look_history import fewer_looks
from journeyman.manifests import EvidenceFile, Stamp
from journeyman.model_files import hash_of_model, is_complete
from journeyman.pipeline import STAGES, Stage
from journeyman.runs import PLACES, SOURCE, TARGETS_FOLDER, Run, beside, place_of
from journeyman.time_history import TIMES, damaged_lines

_CHECK = "check "
_REDO = "journeyman run --redo --dir"
NOT_COVERED: Mapping[str, str] = {
    "journeyman.toml": "`run` compares its settings",
    "journeyman.log": "a log",
    ".progress.json": "the state of the last command",
    ".lock": "empty",
    "bisect.json": "no stage reads it",
    "superseded": "earlier results",
}
"""Files in a run's folder without a recorded hash, and why they need none."""


@dataclass
class Verified:
    """The result of a verification.

    Attributes:
        findings: one sentence each; the file's path comes first.
        notes: what could not be compared, and why that is not a finding.
        files: how many were compared.
        not_covered: what is in the folder and not compared.
    """

    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    not_covered: list[str] = field(default_factory=list)

    def differs(self, path: Path, why: str) -> None:
        self.findings.append(f"{plain(str(path))}: {why}")

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """What cannot be read is a finding, and ends only this part of the verification."""
        try:
            yield
        except OSError as error:
            named = error.filename if isinstance(error.filename, str) else path
            self.differs(Path(named), f"cannot be read: {error.strerror or error}")
        except ValueError as error:  # such as a name with a NUL
            self.differs(path, f"cannot be read: {plain(str(error))}")


def verify(folder: Path) -> Verified:
    """Verifies the folder of a run or bundle.

    Raises:
        UsageError: it is neither.
    """
    found = Verified()
    if (folder / MANIFEST).exists():  # whatever its folders are called; a run has none
        named = next((stage.name for stage in STAGES if stage.folder == folder.resolve().name), "export")
        _verify_folder(folder, named, found)
    elif any((folder / stage.folder).is_dir() or (folder / stage.folder).is_symlink() for stage in STAGES):
        _verify_run(folder, found)
    else:
        raise UsageError(
            f"{folder}: neither a run nor a bundle",
            "Name a run's folder, as in journeyman verify my-run, or its 07-bundle",
        )
    return found


def _verify_run(root: Path, found: Verified) -> None:
    if is_at_work(root):
        found.notes.append(f"{root}: a journeyman is running here; verify again when it has ended")
    made: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        place = root / stage.folder
        if place.is_dir() and not place.is_symlink() and not (place / MANIFEST).exists():
            found.notes.append(f"{place}: unfinished; nothing in it is compared")
        elif place.exists() or place.is_symlink():
            data = _verify_folder(place, stage.name, found)
            if data is not None:
                made[stage.name] = data
    for stage in STAGES:
        if stage.name in made:
            _verify_chain(root, stage, made, found)
    _verify_targets(root, made, found)
    _verify_inputs(root, made, found)
    with found.reading(root / RESPONSES):
        _verify_responses(root, made, found)
    with found.reading(root / LOOKS):
        _verify_looks(root, found)
    with found.reading(root / TIMES):
        _verify_times(root, found)
    found.not_covered = [f"{name} ({why})" for name, why in NOT_COVERED.items() if (root / name).exists()]


def _verify_folder(place: Path, stage: str, found: Verified) -> dict[str, Any] | None:
    """Verifies a stage's folder; returns its manifest if that is usable."""
    path = place / MANIFEST
    found.files += 1
    try:
        refuse_link(place)
        data = manifest_data(path, stage)
        stamp, _ = read_manifest(path, stage, PLACES[stage].makes)
    except ChangedArtifact as error:
        found.findings.append(error.what)
        return None
    with found.reading(place):
        _verify_files(place, stamp, manifest_bytes(data), stage, found)
    return data


def _verify_files(place: Path, stamp: Stamp, manifest: bytes, stage: str, found: Verified) -> None:
    path = place / MANIFEST
    if path.read_bytes() != manifest:
        found.differs(path, f"changed after {stage} made it, though only in its formatting")
    if stamp.sha256 is None:
        found.notes.append(
            f"{path}: made by journeyman {stamp.journeyman}, which did not record a hash of the manifest"
        )
    for name, recorded in stamp.files.items():
        found.files += 1
        if why := difference(place / name, recorded, stage):
            found.differs(place / name, why)
    for name in [*files_below(place), *_marks(place, stage)]:
        if name not in stamp.files:
            found.differs(place / name, f"not among the files that {stage} made")
    for checkpoints in sorted(place.rglob(CHECKPOINTS)):
        if checkpoints.is_symlink():
            found.differs(checkpoints, f"a link, which {stage} did not make")
        elif checkpoints.is_dir():  # a file of this name is among the other files
            _verify_checkpoints(checkpoints, found)


def _marks(place: Path, stage: str) -> list[str]:
    """What only a stage that can be resumed leaves in its folder."""
    resumable = next(one for one in STAGES if one.name == stage).resumable
    return [] if resumable or not (place / UNFINISHED).exists() else [UNFINISHED]


def _verify_targets(root: Path, made: Mapping[str, dict[str, Any]], found: Verified) -> None:
    """Verifies what `export --target` made, each with its own manifest."""
    for place in sorted((root / TARGETS_FOLDER).glob("*")):
        if place.name == LOCK:
            continue
        if is_leftover(place):
            found.differs(place, "left behind by an interrupted export, and may be removed")
            continue
        if not place.is_symlink() and not (place / MANIFEST).exists():
            found.differs(place, "not a target that export made")
            continue
        data = _verify_folder(place, "export", found)
        if data is not None and "export" in made:
            recorded = data["stamp"]["inputs"].get(PLACES["export"].folder)
            if recorded != result_hash(made["export"]):
                found.notes.append(f"{place}: made from another bundle than the one in {root}")


def _verify_checkpoints(folder: Path, found: Verified) -> None:
    from journeyman.training.checkpoint import FILES, checkpoints, damaged_files, holds_own_hash

    sound = checkpoints(folder)
    for path in sorted(folder.iterdir()):
        if path not in sound:
            found.differs(path, "not a checkpoint; left behind by an interrupted save, and may be removed")
    for checkpoint in sound:
        found.files += len(FILES)
        damaged = damaged_files(checkpoint)
        for path in damaged:
            found.differs(path, "changed after train wrote it; training resumes from an older checkpoint")
        if not damaged and not holds_own_hash(checkpoint):
            found.notes.append(f"{checkpoint / FILES[0]}: written by an older version, without its own hash")
        for path in sorted(checkpoint.iterdir()):
            if path.name not in FILES:
                found.differs(path, "not among the files that train made")


def _verify_chain(root: Path, stage: Stage, made: Mapping[str, dict[str, Any]], found: Verified) -> None:
    inputs = made[stage.name]["stamp"]["inputs"]
    for need in stage.needs:
        folder = place_of(need).folder
        if not (root / folder).exists():
            found.differs(root / folder, f"missing; {stage.name} was made from it")
        elif need in made and inputs.get(folder) not in _hashes(made[need], stage.parts.get(need, ())):
            found.differs(
                root / stage.folder / MANIFEST, f"made from another {folder}: {_REDO} {shlex.quote(str(root))}"
            )


def _hashes(data: Mapping[str, Any], parts: Sequence[str]) -> set[str]:
    """What a stage may have recorded of a result: the hash of the parts that it takes or, in older versions, of all."""
    return {result_hash(data, parts), result_hash(data)}


def _verify_inputs(root: Path, made: Mapping[str, dict[str, Any]], found: Verified) -> None:
    """Verifies what came from outside the run: logs, the user's checks, the base's files. They may have been moved."""
    logs = _logs(root)
    for key, recorded in made["ingest"]["stamp"]["inputs"].items() if "ingest" in made else ():
        if key.startswith(SOURCE):
            path = logs.get(key.removeprefix(SOURCE), root / key.removeprefix(SOURCE))
            _verify_outside([path], path, recorded, "ingest", found)
    for key, recorded in made["plan"]["stamp"]["inputs"].items() if "plan" in made else ():
        if key.startswith(_CHECK):
            path = root / key.removeprefix(_CHECK)
            _verify_outside([path], path, recorded, "plan", found)
    bases: dict[str, str] = {}
    if "plan" in made:
        bases[made["plan"]["result"]["base_path"]] = made["plan"]["result"]["base_sha256"]
    if "evaluate" in made:
        bases |= {
            one["path"]: one["sha256"] for one in made["evaluate"]["result"]["files"].values() if not one.get("merged")
        }
    for name, recorded in bases.items():
        _verify_outside(beside(root, Path(name)), Path(name), recorded, "plan", found, hash_of_model)


def _logs(root: Path) -> dict[str, Path]:
    """Name → file of the logs by the config file; empty if that cannot be read or names missing files."""
    try:
        return dict(Run(root, load_config(root / CONFIG_NAME)).sources)
    except JourneymanError:
        return {}


def _verify_outside(
    places: list[Path],
    named: Path,
    recorded: str,
    stage: str,
    found: Verified,
    hashed: Callable[[Path], str] = hash_of_file,
) -> None:
    with found.reading(named):
        path = next((path for path in places if is_complete(path)), None)
        if path is None:
            parts = "a part of it is " if any(path.is_file() for path in places) else ""
            found.notes.append(f"{plain(str(named))}: {parts}no longer there, not compared")
            return
        found.files += 1
        if (now := hashed(path)) != recorded:
            found.differs(path, f"changed after {stage} read it (SHA-256 {recorded[:12]}…, now {now[:12]}…)")


def _verify_responses(root: Path, made: Mapping[str, dict[str, Any]], found: Verified) -> None:
    path = place_to_read(root, RESPONSES)
    records = made["evaluate"]["result"].get("evidence", []) if "evaluate" in made else []
    record = next((EvidenceFile(**one) for one in records if one["file"] == RESPONSES), None)
    if not path.exists():
        if record is not None and record.lines:
            found.notes.append(f"{path}: no longer there; another evaluation asks everything again")
        return
    found.files += 1
    lines, torn = read_lines(path)
    damaged = sum(line.content is None for line in lines)
    unsealed = sum(line.content is not None and not line.sealed for line in lines)
    if unsealed and not any(line.sealed for line in lines):
        found.notes.append(f"{path}: written by an older version, without checksums")
        unsealed = 0
    if damaged + unsealed or torn:
        found.differs(path, f"{damaged + unsealed + torn} of its lines changed after evaluate wrote them")
    elif record is not None and (why := evidence.difference(root, record)):
        found.differs(path, why)


def _verify_times(root: Path, found: Verified) -> None:
    if not (path := root / TIMES).exists():
        return
    found.files += 1
    if damaged := damaged_lines(root):
        found.differs(
            path,
            f"{damaged} of its lines changed after they were written, or are cut short; `show plan` leaves them out",
        )


def _verify_looks(root: Path, found: Verified) -> None:
    path = place_to_read(root, LOOKS)
    found.files += path.exists()
    try:
        if not read_looks(path).sealed:
            found.notes.append(f"{path}: written by an older version, without checksums")
        why = fewer_looks(root)
    except ChangedArtifact as error:
        if error.what not in found.findings:  # the dataset's manifest may be among the findings already
            found.findings.append(error.what)
        return
    if why:
        found.differs(path, why)
    for file in (LOOKS, RESPONSES):
        if old := left_over(root, file):
            found.notes.append(f"{old}: written since by an older version; the next evaluation imports it")
