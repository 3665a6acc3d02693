"""A search for a training recipe in a run's folder, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from journeyman.api.html import escaped
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import UsageError
from journeyman.locking import locked
from journeyman.pipeline import run_pipeline
from journeyman.protocols import Reporter
from journeyman.runs import Run
from journeyman.search.applying import apply, as_toml
from journeyman.search.keys import inputs_of
from journeyman.search.ledger import Ledger, Trial
from journeyman.search.searching import search
from journeyman.search.state import FOLDER, SearchState, read_state
from journeyman.search.telling import in_order, recommended, told_result
from journeyman.stage_states import states_of


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search tried and found.

    Attributes:
        folder: the run's.
        state: every figure, typed.
    """

    folder: Path
    state: SearchState

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials, those on more rows first, the best of a rung first."""
        return in_order(list(Ledger(self.folder / FOLDER).of(self.state.inputs)))

    @property
    def recommended(self) -> dict[str, Any]:
        """Keys of the config to change, with their values; empty: keep the default."""
        return recommended(self.state, self.trials) or {}

    @property
    def toml(self) -> str:
        """The same as a part of a config file."""
        return as_toml(self.recommended)

    def told(self) -> list[str]:
        """The result in sentences."""
        return told_result(self.state, self.trials)

    def apply(self) -> dict[str, tuple[Any, Any]]:
        """Writes what is recommended into journeyman.toml; key → old and new value.

        Raises:
            UsageError: nothing is recommended, or settings, rows, checks, base or engine are not those of the search.
            DiskError: the file cannot be written.
        """
        path, wanted = self.folder / CONFIG_NAME, self.recommended
        if not wanted:
            raise UsageError(f"{self.folder}: no recipe to apply: {self.told()[0]}", "See: journeyman show search")
        run = Run(self.folder, load_config(path))
        if run.config.train != self.state.default:
            raise UsageError(
                f"{path}: [train] is not what the search began with, so its differences mean something else",
                "If it was applied already, go on with: journeyman run --redo. Otherwise search again",
            )
        self._require_current(run)
        return apply(path, wanted)

    def _require_current(self, run: Run) -> None:
        states = states_of(run)
        changed = [key for stage in ("curate", "plan") for key in states[stage].changed]
        if not changed and all(states[stage].state == "fresh" for stage in ("curate", "plan")):
            if inputs_of(run, self.state.seed) == self.state.inputs:
                return
            changed = ["what it depends on (rows, checks, base, engine, [evaluate], or what --set gave)"]
        raise UsageError(
            f"{self.folder}: its differences mean something else now, because since the search something has changed: "
            f"{', '.join(changed) or 'the plan'}",
            f"Search again: journeyman search --dir {self.folder}",
        )

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escaped(line)}</p>" for line in self.told())

    def __repr__(self) -> str:
        return f"<SearchResult {self.folder}: {self.state.state}>"


def run_search(folder: Path, settings: Sequence[str], reporter: Reporter) -> SearchResult:
    """Brings a run up to its plan and searches; what was interrupted resumes.

    Raises:
        UsageError: the budget is too small, or another journeyman works in the folder.
        JourneymanError: as the stages and the search do.
    """
    run = Run(folder, load_config(folder / CONFIG_NAME, list(settings)))
    for _ in run_pipeline(run, "plan", reporter):
        pass
    run.load_checks()
    with locked(folder):
        return SearchResult(folder, search(run, reporter))


def last_search(folder: Path) -> SearchResult:
    """The last search of a run, finished or not.

    Raises:
        UsageError: there was none.
    """
    state = read_state(folder)
    if state is None:
        raise UsageError(f"{folder}: no search was made here", f"Run: journeyman search --dir {folder}")
    return SearchResult(folder, state)
