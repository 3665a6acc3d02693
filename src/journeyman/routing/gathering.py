"""A copy of what was recorded, as the next training data: the teacher's answers, with what the student did beside them.

The recorder may be running: only complete rows are taken. Answers of the student are left out. A row says in `student`
how the student did with the same request, and in `feedback` what was reported about its answer; both end up in the
interaction's `extra`, and an answer with bad feedback counts as failed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from journeyman.artifacts import complete_or_absent, disk_error
from journeyman.gateway.feedback import feedback_of
from journeyman.gateway.roles import FEEDBACK
from journeyman.gateway.row_files import row_in
from journeyman.routing.assessing import EXCHANGES
from journeyman.routing.reading import Cursor, RowFollower
from journeyman.sources.fields import mapping

ROWS = "rows.jsonl.zst"
_AT_A_TIME = 1_000
_LEVEL = 3


@dataclass
class Gathered:
    """What was copied.

    Attributes:
        rows: copied rows.
        student: left out: answers of the student.
        marked: copied rows with which the student failed, by mode.
        disliked: copied rows whose answer had bad feedback.
        unreadable: files that are damaged, and why.
    """

    rows: int = 0
    student: int = 0
    marked: Counter[str] = field(default_factory=Counter)
    disliked: int = 0
    unreadable: list[str] = field(default_factory=list)


def gather(rows: Path, folder: Path, out: Path) -> Gathered:
    """Copies the rows; an earlier copy is replaced.

    Args:
        rows: the recorder's folder.
        folder: with the results of the assessor, if there are some.
        out: the folder for the copy.

    Raises:
        DiskError: the copy cannot be written.
    """
    found = Gathered()
    marks, feedback = _marks(folder), _feedback(rows)
    follower = RowFollower(rows, Cursor())
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with complete_or_absent(out / ROWS) as staged, staged.open("wb") as file:
            staged.chmod(0o600)
            with zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(
                file, closefd=False
            ) as packed:
                while lines := list(follower.lines(_AT_A_TIME)):
                    for line in lines:
                        packed.write(_copied(line, marks, feedback, found))
    except OSError as error:
        raise disk_error(error, out) from error
    found.unreadable = [f"{name}: {why}" for name, why in follower.unreadable.items()]
    return found


def _copied(line: bytes, marks: dict[int, dict[str, str]], feedback: dict[int | str, float], found: Gathered) -> bytes:
    row = row_in(line)  # ingest says what is wrong with a line that is none
    route = mapping(row.get("route"))
    if route.get("arm") == "student" and not route.get("fallback"):
        found.student += 1
        return b""
    found.rows += 1
    seq = row.get("seq")
    mark = marks.get(seq) if isinstance(seq, int) else None
    if route.get("fallback"):
        mark = {"failed_in": "fallback", "why": str(route["fallback"])}
    if row.get("path") == FEEDBACK:
        return line
    score = next((feedback[key] for key in (seq, row.get("conversation")) if key in feedback), None)
    if mark is None and score is None:
        return line
    if mark is not None:
        row["student"] = mark
        found.marked[mark["failed_in"]] += 1
    if score is not None:
        row["feedback"] = score
        found.disliked += score < 0.5
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _marks(folder: Path) -> dict[int, dict[str, str]]:
    """Exchange → how the student failed when it was compared."""
    made = {}
    for one in _lines(folder / EXCHANGES):
        if one.get("place") == "shadow" and one.get("failed") is True and isinstance(one.get("of"), int):
            made[one["of"]] = {"failed_in": "shadow", "why": str(one.get("why") or "")}
    return made


def _feedback(rows: Path) -> dict[int | str, float]:
    """Exchange, or conversation → the last score that was reported."""
    made: dict[int | str, float] = {}
    follower = RowFollower(rows, Cursor())
    while lines := list(follower.lines(_AT_A_TIME)):
        for line in lines:
            if FEEDBACK.encode() not in line:
                continue
            row = row_in(line)
            if row.get("path") != FEEDBACK or row.get("outcome") != "complete":
                continue
            said = feedback_of(mapping(row.get("request")), str(row.get("conversation") or ""))
            if said is not None and said.score is not None:
                made[said.exchange if said.exchange is not None else said.conversation] = said.score
    return made


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        yield from map(row_in, file)
