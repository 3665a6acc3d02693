"""What was tried and what it came to: a file of lines that only grows, so that iterating resumes and can be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from journeyman.artifacts import disk_error, write_atomic
from journeyman.checksum_lines import read_lines, sealed
from journeyman.errors import ChangedArtifact
from journeyman.manifests import Manifest, VerdictName
from journeyman.reasons import ReasonRecord

FOLDER, LEDGER = "iterations", "iterations.jsonl"


class Tried(Manifest):
    """A change that was trained and compared on the validation rows."""

    kind: Literal["tried"] = "tried"
    session: str = Field(description="hash of the settings and rows from which iterating began")
    at: str
    change: dict[str, Any] = Field(description="key of the config → value")
    settings: dict[str, Any] = Field(description="all keys that differ from those of the beginning, with this change")
    role: str
    reason: ReasonRecord = Field(description="the advice that it carries out")
    outcome: Literal["better", "not_better", "diverged", "does_not_fit"]
    rows: int = Field(0, description="validation rows that could be scored for both")
    passed: int = 0
    before: int = Field(0, description="rows that the run's own adapter passed")
    wins: int = 0
    losses: int = 0
    loss: float | None = None
    loss_before: float | None = None
    worse: list[str] = Field([], description="roles that lost more rows than chance explains, so that it is not better")
    look_s: float = Field(0.0, description="seconds that making the run anew with it will probably take")
    seconds: float


class Looked(Manifest):
    """The run made anew with a change that was better, and its verdict. Without look and verdict: the plan refused."""

    kind: Literal["looked"] = "looked"
    session: str
    at: str
    settings: dict[str, Any] = Field(description="all keys that differ from those of the beginning")
    look: int | None = Field(description="number of this look at the held-out rows, over all that the run has had")
    verdict: VerdictName | None
    passed: int | None = Field(None, description="held-out rows that it passes")
    rows: int | None = Field(None, description="held-out rows that could be scored")
    why: str = Field("", description="why the plan refused it")
    seconds: float


class Stopped(Manifest):
    """A trial or a look that was interrupted, and will be resumed: its time counts."""

    kind: Literal["stopped"] = "stopped"
    session: str
    at: str
    settings: dict[str, Any] = Field(description="all keys that differ from those of the beginning")
    seconds: float


Entry = Tried | Looked | Stopped
_Tagged = Annotated[Tried | Looked | Stopped, Field(discriminator="kind")]
_ENTRY: TypeAdapter[Tried | Looked | Stopped] = TypeAdapter(_Tagged)


class Ledger:
    """The record of a run's iterations. A line that a kill cut short is dropped, and its work resumed.

    Raises:
        ChangedArtifact: a line was changed after it was written.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FOLDER / LEDGER
        lines, torn = read_lines(self.path)
        self.entries: list[Entry] = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.content is None or not line.sealed:
                    raise ValueError
                self.entries.append(_ENTRY.validate_python(line.content))
            except (ValueError, ValidationError) as error:
                raise ChangedArtifact(
                    f"{self.path}:{number}: not as iterate wrote it", "Restore the file, or move it away"
                ) from error
        if torn:
            write_atomic(self.path, b"".join(sealed(one.model_dump(mode="json")) for one in self.entries))

    def add(self, entry: Entry) -> None:
        """Writes a line, which is on disk when this returns; raises DiskError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(sealed(entry.model_dump(mode="json")))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error
        self.entries.append(entry)

    def of(self, session: str) -> Sequence[Entry]:
        return [one for one in self.entries if one.session == session]


def spent_s(entries: Sequence[Entry]) -> float:
    """Seconds that these took. A kill costs the count of what it hit."""
    return sum(one.seconds for one in entries)


def looks_of(entries: Sequence[Entry]) -> list[Looked]:
    """Those that looked at the held-out rows."""
    return [one for one in entries if isinstance(one, Looked) and one.verdict is not None]


def in_force(entries: Sequence[Entry]) -> dict[str, Any]:
    """The settings of the run now, beside those of the beginning: of the last change that was better and not refused.

    Its look may not have been finished: see pending.
    """
    refused = [one.settings for one in entries if isinstance(one, Looked) and one.verdict is None]
    better = [one.settings for one in entries if isinstance(one, Tried) and one.outcome == "better"]
    return next((one for one in reversed(better) if one not in refused), {})


def pending(entries: Sequence[Entry]) -> Tried | None:
    """The change that was found better, if the run has not been made anew with it."""
    last = _last(entries)
    return last if isinstance(last, Tried) and last.outcome == "better" else None


def made_with(entries: Sequence[Entry]) -> dict[str, Any]:
    """The settings with which the run was made last, without a pending change."""
    return in_force([one for one in entries if one is not pending(entries)])


def pending_s(entries: Sequence[Entry]) -> float:
    """Seconds that making the run anew with the pending change will probably still take."""
    change = pending(entries)
    if change is None:
        return 0.0
    return max(0.0, change.look_s - spent_s(entries[list(entries).index(change) + 1 :]))


def _last(entries: Sequence[Entry]) -> Tried | Looked | None:
    return next((one for one in reversed(entries) if not isinstance(one, Stopped)), None)
