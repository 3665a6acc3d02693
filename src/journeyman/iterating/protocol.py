"""What the loop needs from the work, and what the work tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from journeyman.config import TrainConfig
from journeyman.iterating.changes import Compared, Settings
from journeyman.manifests import DecisionManifest


@dataclass(frozen=True)
class Shown:
    """What the run shows with some settings.

    Attributes:
        look: number of its look at the held-out rows.
        passed: held-out rows that it passes, of `rows` that could be scored; None: none could.
        cut_rows: whether training rows whose answers are cut could be left out.
    """

    decision: DecisionManifest
    recipe: TrainConfig
    look: int
    passed: int | None
    rows: int | None
    cut_rows: bool = False


@dataclass(frozen=True)
class Estimate:
    """Seconds that a change will probably take.

    Attributes:
        trial_s: to train it and to answer the validation rows.
        look_s: to make the run anew with it.
        answers_known: whether the time of the answers is in these figures.
    """

    trial_s: float
    look_s: float
    answers_known: bool = True

    @property
    def total_s(self) -> float:
        return self.trial_s + self.look_s


class Work(Protocol):
    """What takes time."""

    def shown(self, settings: Settings, *, redo: bool) -> Shown:
        """Brings the run up to its verdict; raises NoGo if the plan refuses.

        With `redo`, from the plan on; without, raises StaleArtifact if the run was made with other settings.
        """

    def estimate(self, now: Settings, changed: Settings) -> Estimate:
        """How long the changed settings will take; raises NoGo if they do not fit in memory."""

    def compare(self, now: Settings, changed: Settings) -> Compared:
        """Trains with the changed settings, and answers the validation rows beside the run's adapter.

        Raises NoGo, TrainingDiverged, and Interrupted, after which the same call resumes.
        """
