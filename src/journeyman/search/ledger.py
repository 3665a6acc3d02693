"""What a search tried: one line for each trial, with a checksum, so that it resumes and trials can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from journeyman.artifacts import disk_error, write_atomic
from journeyman.checksum_lines import read_lines, sealed
from journeyman.records import Record

TRIALS = "trials.jsonl"


class Trial(Record):
    """A candidate on one rung."""

    key: str = Field(description="hash of all that its outcomes depend on: settings, rows, base, checks and engine")
    search: str = Field(description="hash of what the search depends on, see SearchState.inputs")
    number: int = Field(description="of the candidate; 0 is the default")
    changes: dict[str, Any] = Field(description="key of [train] → value that differs from the default's")
    share: float = Field(description="of the training rows")
    state: Literal["scored", "diverged", "does_not_fit", "failed"]
    why: str = Field("", description="why it has no outcomes")
    rows: int = Field(description="training rows that were used")
    tokens: int = Field(0, description="trained, over all epochs")
    steps: int = 0
    train_s: float = Field(0.0, description="of the trial's training, with loading")
    step_s: float = Field(0.0, description="of it, without loading and writing")
    answer_s: float = Field(0.0, description="its part of the time in which the rung was answered")
    engine_s: float = Field(0.0, description="its part of the time in which the engine was loaded and proven")
    together: int = Field(1, description="trials that the engine answered for at once")
    train_loss: float | None = Field(None, description="over the last steps; None: not known, or several adapters")
    loss: float | None = Field(None, description="on the scored rows, at the best step")
    outcomes: dict[str, Literal["pass", "fail", "unscored"]] = Field(
        default_factory=dict, description="row → outcome, by the checks of its role"
    )
    by_role: dict[str, tuple[int, int]] = Field(
        default_factory=dict, description="role → rows that pass, rows that could be scored"
    )
    adapter_sha256: dict[str, str] = Field(default_factory=dict, description="'all' or role → hash of its adapter")
    at: str = Field(description="when it was recorded, in ISO 8601")

    @property
    def stands(self) -> bool:
        """Whether the same trial would end so again. Memory that was short or an error may be gone the next time."""
        return self.state in ("scored", "diverged")

    @property
    def seconds(self) -> float:
        return self.train_s + self.answer_s + self.engine_s


class Spent(Record):
    """Computing time that counts against a search's budget."""

    search: str
    spent_s: float
    trained: dict[str, float] = Field(
        default_factory=dict, description="key of a trial that was being trained → its part of the seconds"
    )


class Ledger:
    """The file of trials. A line that was cut short by a kill is dropped, and its trial is made again.

    Args:
        repair: removes such a line from the file, for whoever holds the lock of the folder.

    Attributes:
        damaged: lines that were changed after they were written; they are left out.
    """

    def __init__(self, folder: Path, *, repair: bool = False) -> None:
        self._path = folder / TRIALS
        lines, torn = read_lines(self._path)
        self.damaged = 0
        self._trials: dict[tuple[str, str], Trial] = {}
        self._newest: dict[str, Trial] = {}
        self._spent: list[Spent] = []
        self._begun: dict[tuple[str, str], float] = {}
        sound = []
        for line in lines:
            found = _read(line.content) if line.sealed else None
            if found is None or line.content is None:
                self.damaged += 1
                continue
            sound.append(line.content)
            self._keep(found)
        if torn and repair:
            write_atomic(self._path, b"".join(map(sealed, sound)))

    def find(self, search: str, key: str) -> Trial | None:
        """A trial that a search made, or took over."""
        return self._trials.get((search, key))

    def find_any(self, key: str) -> Trial | None:
        """The newest trial of any search: its number and changes are those of that search."""
        return self._newest.get(key)

    def of(self, search: str) -> Iterator[Trial]:
        """The trials that a search made or took over, in order."""
        return (one for one in self._trials.values() if one.search == search)

    def spent_s(self, search: str) -> float:
        """Seconds of computing, also of what was interrupted. A kill costs the count of what it hit."""
        return sum(one.spent_s for one in self._spent if one.search == search)

    def begun_s(self, search: str, key: str) -> float:
        """Seconds that a trial was trained before it was interrupted; 0 for one that was not begun, or is recorded."""
        return self._begun.get((search, key), 0.0)

    def add(self, one: Trial | Spent) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(sealed(one.model_dump(mode="json")))
        except OSError as error:
            raise disk_error(error, self._path) from error
        self._keep(one)

    def _keep(self, one: Trial | Spent) -> None:
        if isinstance(one, Trial):
            self._trials[one.search, one.key] = self._newest[one.key] = one
            self._begun.pop((one.search, one.key), None)
        else:
            self._spent.append(one)
            for key, seconds in one.trained.items():
                self._begun[one.search, key] = self.begun_s(one.search, key) + seconds


def _read(content: dict[str, Any] | None) -> Trial | Spent | None:
    try:
        return (Spent if "spent_s" in (content or {}) else Trial).model_validate(content)
    except ValidationError:
        return None
