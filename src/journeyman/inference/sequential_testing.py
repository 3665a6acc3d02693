"""Counts how often a run's held-out test set has been evaluated.

With enough looks at the same test set, some adapter passes by luck. Therefore each look gets half the error rate of the
one before: over any number of looks, the chance of a wrong deployment stays below twice that of the first look.

Each line has a checksum that also covers the line before. A file in which a line was changed or removed is refused,
because a look that is not counted defeats the correction. Lines without a checksum, from version 0.4.0 and before, may
be at the beginning of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from journeyman.artifacts import hash_of, write_atomic
from journeyman.checksum_lines import checksum, read_line, sealed
from journeyman.errors import ChangedArtifact
from journeyman.evidence import LOOKS, left_over, place_to_write


class Look(NamedTuple):
    """The number of this look at the test set, from 1, and of all looks so far (more if this look is repeated)."""

    number: int
    of: int


def count_look(folder: Path, sealed_sha256: str, judged: Mapping[str, object]) -> Look:
    """Records this look and returns its number. An identical evaluation is the same look and is not counted twice.

    Args:
        sealed_sha256: hash of the held-out test set.
        judged: everything that makes a look a new one: the adapters' hashes, the rules, the settings, the user's own
            checks, and every score, so that any other cause of a change counts as well.

    Raises:
        ChangedArtifact: the record of earlier looks is damaged or was edited.
    """
    path, here = place_to_write(folder, LOOKS), {"sealed": sealed_sha256, "judged": hash_of(dict(judged))}
    before = read_looks(path)
    old = left_over(folder, LOOKS)
    more = [look for look in read_looks(old).looks if look not in before.looks] if old else []
    known = [*before.looks, *more]
    if here not in known:
        more.append(here)
        known.append(here)
    if more:
        written, last = path.read_bytes() if path.is_file() else b"", before.last
        for look in more:
            written, last = written + sealed(look, last), checksum(look, last)
        write_atomic(path, written)
    if old:
        old.unlink()
    mine = [look["judged"] for look in known if look["sealed"] == sealed_sha256]
    return Look(mine.index(here["judged"]) + 1, len(mine))


class Looks(NamedTuple):
    """The looks so far, the checksum of the last one, and whether the file contains that checksum."""

    looks: list[dict[str, str]]
    last: str
    sealed: bool


def read_looks(path: Path) -> Looks:
    """Reads the record of looks; raises ChangedArtifact like count_look."""
    if not path.is_file():
        return Looks([], "", True)
    *lines, rest = path.read_bytes().split(b"\n")
    looks: list[dict[str, str]] = []
    last, any_sealed = "", False
    for number, raw in enumerate(lines, start=1):
        line = read_line(raw, last)
        if line.content is None or line.sealed < any_sealed or line.content.keys() != {"sealed", "judged"}:
            raise _damaged(path, number)
        looks.append({str(key): str(value) for key, value in line.content.items()})
        last, any_sealed = checksum(line.content, last), line.sealed
    if rest:
        raise _damaged(path, len(lines) + 1)
    return Looks(looks, last, any_sealed)


def _damaged(path: Path, number: int) -> ChangedArtifact:
    return ChangedArtifact(
        f"{path}:{number}: changed after evaluate wrote it, so the number of looks at this test set is not known",
        "Restore the file; or remove it, set another curate.seed for a fresh test set, and run: journeyman run --redo",
    )


def confidence_of_look(confidence: float, look: int) -> float:
    """The confidence level of the intervals at the n-th look at the same test set."""
    return float(1 - (1 - confidence) / 2 ** (look - 1))
