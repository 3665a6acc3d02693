"""How often the sealed rows of a folder have judged an adapter.

Whoever looks at the same rows again and again, and deploys what passes at last, passes by luck in the end. So each
further look is judged at half the error of the one before: over any number of looks the chance of a wrong deployment
stays below twice the first one's.

Each line holds a checksum of itself and of the line before: a file in which one was changed or taken out is refused,
since a look that is not counted makes the guard void. Lines without a checksum, from version 0.4.0 and before, may
stand at the file's beginning.
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
    """Which look at the sealed rows this is, from 1, and how many there were so far: more where one is repeated."""

    number: int
    of: int


def count_look(folder: Path, sealed_sha256: str, judged: Mapping[str, object]) -> Look:
    """The number of this look. What is judged alike in all is the same look, and is not counted twice.

    Args:
        judged: what makes a look another one: the adapters' hashes, the rules, the settings, the checks of one's own,
            and every verdict, so that whatever else may change one counts as well.

    Raises:
        ChangedArtifact: the record of earlier looks is damaged or was changed by hand.
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
    """The looks so far, the checksum of the last one, and whether it stands in the file."""

    looks: list[dict[str, str]]
    last: str
    sealed: bool


def read_looks(path: Path) -> Looks:
    """Raises as count_look does."""
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
        f"{path}:{number}: changed after evaluate wrote it: how often these sealed rows were looked at is not known",
        "Restore the file; or remove it and take fresh sealed rows with another curate.seed: journeyman run --redo",
    )


def confidence_of_look(confidence: float, look: int) -> float:
    """The confidence of the intervals of the n-th look at the same rows."""
    return float(1 - (1 - confidence) / 2 ** (look - 1))
