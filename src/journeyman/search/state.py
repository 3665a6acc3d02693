"""search.json: what a search set out to do, how far it is, and what it found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from journeyman.artifacts import read_model, write_model
from journeyman.config import TrainConfig
from journeyman.records import Record
from journeyman.search.choosing import Choice
from journeyman.search.halving import Costs, Schedule

FOLDER = "search"
STATE = "search.json"


class Pair(Record):
    """A candidate's success minus the default's, on rows that could be scored for both."""

    rows: int
    wins: int = Field(description="rows that the candidate passes and the default fails")
    losses: int
    difference: float
    low: float = Field(description="lower end of the interval")
    high: float


class Found(Record):
    """What the last rung showed."""

    number: int = Field(description="of the candidate to train with; 0: the default")
    best: int | None = Field(description="that candidate, or else the one that ranks first; None: none was scored")
    versus: dict[int, Pair] = Field(description="candidate → its difference from the default on all validation rows")
    by_role: dict[int, dict[str, Pair]]
    confidence: float = Field(description="of each interval, corrected for the number of candidates")
    lost: list[str] = Field(description="roles in which the best candidate passes fewer rows than the default")
    vetoed: list[str] = Field(description="those of them in which the whole interval is below 0")


class RungState(Record):
    """One share of the training rows."""

    share: float
    rows: int = Field(description="training rows")
    answered: int = Field(description="rows that each trial is scored on")
    planned: int = Field(description="candidates, without the default")
    trials: list[str] = Field(default_factory=list, description="keys in trials.jsonl, once they are scored")


class SearchState(Record):
    """The state of a search; its trials are in trials.jsonl."""

    inputs: str = Field(description="hash of what the search depends on: base, rows, settings, checks, engine, seed")
    state: Literal["running", "finished", "out_of_budget", "nobody_left"] = Field(
        description="nobody_left: no candidate has a result on a part of the rows, so none was trained on all"
    )
    budget_s: float
    seed: int
    most: int = Field(0, description="candidates at most; 0: not recorded")
    default: TrainConfig
    searched: list[str] = Field(description="keys of [train]")
    left_out: list[str] = Field(description="what is not searched with these rows, and why")
    validation_rows: int
    costs: dict[str, float] = Field(default_factory=dict, description="as measured by the first trials, in seconds")
    seconds: float = Field(0.0, description="that the plan takes")
    least_s: float | None = Field(None, description="the least budget for the default and one candidate on all rows")
    rungs: list[RungState] = Field(default_factory=list)
    found: Found | None = None

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder / STATE, self)


def read_state(root: Path) -> SearchState | None:
    """Of the last search in a run's folder; None if there was none; raises InputError if the file is damaged."""
    path = root / FOLDER / STATE
    return read_model(path, SearchState) if path.is_file() else None


def found_of(choice: Choice) -> Found:
    return Found.model_validate(asdict(choice))


def planned(state: SearchState, schedule: Schedule, costs: Costs) -> SearchState:
    """The state with a schedule."""
    rungs = [
        RungState(share=one.rung.share, rows=one.rung.rows, answered=one.rung.answered, planned=one.candidates)
        for one in schedule.steps
    ]
    more: dict[str, Any] = {
        "costs": asdict(costs), "seconds": schedule.seconds, "least_s": schedule.least_s, "rungs": rungs
    }  # fmt: skip
    return state.model_copy(update=more)
