"""Carrying out what an "iterate" verdict advises."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from journeyman.config import CONFIG_NAME
from journeyman.durations import seconds_of
from journeyman.errors import StaleArtifact, UsageError
from journeyman.iterating.ledger import FOLDER, LEDGER, Entry, Ledger, made_with
from journeyman.iterating.loop import Ended, Iterating, Limits
from journeyman.iterating.telling import settings_text
from journeyman.iterating.working import RunWork, config_with
from journeyman.protocols import Reporter
from journeyman.search.applying import apply


class Iterate:
    """A run folder whose advice is to be carried out.

    Args:
        folder: of the run.
        budget: time, such as "30m" or "1h30m".
        looks: further looks at the held-out rows, at most.
        settings: overrides of config keys, such as "evaluate.parallel=2".

    Raises:
        UsageError: the config file, the budget or the looks are not valid.
    """

    def __init__(self, folder: Path, budget: str = "2h", looks: int = 2, settings: Sequence[str] = ()) -> None:
        if looks < 0:
            raise UsageError(f"{looks} looks", "Give 0 or more with --looks")
        config_with(folder, settings, {})
        self.folder, self._settings = folder, settings
        self._limits = Limits(seconds_of(budget), looks)

    def run(self, reporter: Reporter) -> Ended:
        """Tries changes on the validation rows, and makes the run anew with those that are better.

        Raises:
            Interrupted: asked to stop; the same call resumes.
            StaleArtifact: the run was made with other settings.
            JourneymanError: a stage failed.
        """
        reporter.say(
            f"iterating for at most {self._limits.budget_s:,.0f} s and {self._limits.looks} further looks at the "
            "held-out rows, each with half the error of the one before"
        )
        work = RunWork(self.folder, self._settings, reporter)
        try:
            return Iterating(work, Ledger(self.folder), work.session(), self._limits, reporter.say).run()
        except StaleArtifact as error:
            found = self.not_in_file()
            if not found:
                raise
            raise StaleArtifact(
                f"{error.what}. The run was made with {settings_text(found)}, which iterating found and {CONFIG_NAME} "
                "does not have",
                f"To keep them, set them in {CONFIG_NAME} first. {error.remedy}",
            ) from error

    def not_in_file(self) -> dict[str, Any]:
        """The settings found so far with which the run is made, and which the config file does not have."""
        entries = Ledger(self.folder).entries
        if not entries:
            return {}
        found = made_with([one for one in entries if one.session == entries[-1].session])
        config = config_with(self.folder, self._settings, {})
        return {key: value for key, value in found.items() if reduce(getattr, key.split("."), config) != value}

    def apply(self, ended: Ended) -> dict[str, tuple[Any, Any]]:
        """Writes the settings into the config file; key → old and new value. Raises as search.applying.apply."""
        return apply(self.folder / CONFIG_NAME, ended.settings)


def iterations(folder: Path) -> Sequence[Entry]:
    """What was tried in a run's folder; raises UsageError if nothing was."""
    if not (folder / FOLDER / LEDGER).is_file():
        raise UsageError(f"{folder}: no iterations", "Run: journeyman iterate")
    return Ledger(folder).entries
