"""Recorded prompts of all roles beside those of the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.config import Config
from journeyman.manifests import BundleManifest, DatasetManifest
from journeyman.monitoring.answerers import share_of
from journeyman.monitoring.drift import Reference, drift_of
from journeyman.monitoring.prompts import distinct
from journeyman.monitoring.reading import oldest_rows
from journeyman.monitoring.recorded import RecordedPrompts
from journeyman.monitoring.report import Drift, Prompts
from journeyman.monitoring.training import Examples, differences_in, of_older_rows
from journeyman.reasons import ReasonRecord
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import NoPromptsRead, NoTrainedPrompts, RoleNotTrained

_OLDER_BYTES = 1 << 27


@dataclass(frozen=True)
class Trained:
    """What a run was trained on.

    Attributes:
        folder: with the training data; None: there are none.
        at: time of the training data, in seconds since 1970.
        bundle: that is served; None: there is none.
    """

    folder: Path | None = None
    at: float | None = None
    dataset: DatasetManifest | None = None
    bundle: BundleManifest | None = None


@dataclass(frozen=True)
class PromptLook:
    """A role's prompts."""

    drift: Drift
    prompts: Prompts | None = None
    prompts_unknown: ReasonRecord | None = None


@dataclass
class PromptLooks:
    """What was found at one time.

    Attributes:
        at: seconds since 1970.
        older: whether older rows stand for training data.
        left_out: roles that were not looked at.
        sampled: why not all of the window was sampled; None: it was.
        lost: rows that were met without their contents.
    """

    at: float
    roles: dict[str, PromptLook] = field(default_factory=dict)
    older: bool = False
    left_out: int = 0
    sampled: Reason | None = None
    lost: int = 0


class PromptWatcher:
    """Compares samples; it keeps the training's prompts in memory from one look to the next."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._examples: dict[Path, Examples] = {}

    def sample(self, trained: Trained) -> RecordedPrompts:
        """An empty sample of recorded prompts."""
        differences = differences_in(trained.bundle, trained.dataset, self._config.redact)
        most, named = self._config.monitor.sample, self._named(trained)
        if differences is None:
            return RecordedPrompts(most, named)
        return RecordedPrompts(most, named, differences)

    def compare(
        self, sample: RecordedPrompts, trained: Trained, rows: Path, since: float, now: float
    ) -> PromptLooks:  # fmt: skip
        """Compares what was sampled in a window that began at `since`."""
        made = PromptLooks(now, left_out=len(sample.left_out), older=trained.folder is None)
        reference = self._references(trained, rows, since)
        for role in sample.roles():
            looked = sample.of(role)
            found = reference(role) or Reference()
            prompts = distinct([one.prompt for one in looked], self._config.curate.near_duplicate)
            drift = drift_of(prompts, found, self._config.monitor.alpha)
            told = [one.differences for one in looked if one.differences is not None]
            counted = Counter(difference for one in told for difference in one)
            share = share_of(sum(map(bool, told)), len(told), "conversations")
            against = "dataset" if trained.bundle is None else "bundle"
            made.roles[role] = PromptLook(
                drift,
                None if share is None else Prompts(share=share, differences=dict(counted), against=against),
                None if share is not None else _unknown(trained, bool(looked)),
            )
        return made

    def _named(self, trained: Trained) -> set[str]:
        config = self._config
        named = {rule.role for rule in config.record.roles} | config.roles.keys() | config.route.roles.keys()
        return named | (set() if trained.dataset is None else trained.dataset.splits.keys())

    def _references(self, trained: Trained, rows: Path, since: float) -> Callable[[str], Reference | None]:
        most, alike = self._config.monitor.sample, self._config.curate.near_duplicate
        if trained.folder is None:
            return of_older_rows(oldest_rows(rows, since, _OLDER_BYTES), most, self._named(trained), alike)
        if trained.folder not in self._examples:
            self._examples = {trained.folder: Examples(trained.folder, most, alike)}
        return self._examples[trained.folder].reference


def _unknown(trained: Trained, looked: bool) -> ReasonRecord:
    if trained.bundle is None and trained.dataset is None:
        return NoTrainedPrompts().record()
    return (RoleNotTrained() if looked else NoPromptsRead()).record()
