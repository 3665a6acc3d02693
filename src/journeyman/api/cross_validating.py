"""Cross-validation of a run's recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from journeyman import stage_calls
from journeyman.artifacts import read_model
from journeyman.config import CONFIG_NAME, load_config
from journeyman.durations import spelled
from journeyman.errors import JourneymanError, StaleArtifact, UsageError
from journeyman.locking import locked
from journeyman.manifests import PlanManifest
from journeyman.pipeline import run_pipeline
from journeyman.protocols import Reporter
from journeyman.runs import Run
from journeyman.superseded import changed_keys
from journeyman.trials.cross_validation import CrossValidation, cross_validate, expected_training_s, newest
from journeyman.trials.inputs import inputs_of_trials

NOT_THE_FILE = (
    "evidence about the recipe, not about the file that ships: each fold's adapter is another one, trained on fewer "
    "rows. The held-out test rows were not read"
)


class CrossValidate:
    """A run folder whose recipe is to be cross-validated.

    Args:
        folder: of the run.
        folds: how many parts the training and validation rows are dealt into.
        settings: overrides of config keys, such as "train.epochs=5". Those of [train] are of the recipe that is
            cross-validated, and leave the run's plan as it is.

    Raises:
        UsageError: the config file is not valid.
    """

    def __init__(self, folder: Path, folds: int, settings: Sequence[str] = ()) -> None:
        self.folder, self.folds = folder, folds
        self._run = Run(folder, load_config(folder / CONFIG_NAME, list(settings)))
        others = [one for one in settings if not one.startswith("train.")]
        self._own = self._run  # with the run's own recipe
        if len(others) < len(settings):
            self._own = Run(folder, load_config(folder / CONFIG_NAME, others))

    def run(self, reporter: Reporter) -> tuple[CrossValidation, Path]:
        """Brings the run up to its plan, says how long training will take, trains and scores; result and its file.

        Raises:
            Interrupted: asked to stop; the same call resumes.
            NoGo: the plan has errors, or would have with this recipe, or a fold does not fit in memory.
            StaleArtifact: the dataset or the plan was made with other settings.
            JourneymanError: as trials.cross_validation.cross_validate.
        """
        planned = self._planned(reporter)
        self._run.load_checks()
        with locked(self.folder):
            plan = planned.result("plan", PlanManifest)
            if planned.config.train != self._run.config.train:
                plan = self._plan_of_recipe(reporter)
            if not plan.is_go:
                raise stage_calls.no_go(plan)
            seconds = expected_training_s(self._run, self.folds)
            reporter.say(
                f"training {self.folds} folds: about {spelled(seconds)} in all on this machine; the time of the "
                "answers is not known before the first"
            )
            return cross_validate(self._run, self.folds, reporter)

    def _planned(self, reporter: Reporter) -> Run:
        """The run, up to its plan: with its own recipe, or with the one given here if it was planned with that."""
        try:
            for _ in run_pipeline(self._own, "plan", reporter):
                pass
        except StaleArtifact:
            if self._own is self._run:
                raise
            for _ in run_pipeline(self._run, "plan", reporter):
                pass
            return self._run
        return self._own

    def _plan_of_recipe(self, reporter: Reporter) -> PlanManifest:
        """What the run's plan would be with the recipe given here, with the first error only; it is not kept."""
        with tempfile.TemporaryDirectory(prefix=".recipe-", dir=self.folder) as place:
            made = stage_calls.run_plan(self._run, Path(place), "", reporter)
        assert isinstance(made, PlanManifest)
        return made.model_copy(update={"errors": made.errors[:1]})


def last_result(folder: Path) -> CrossValidation:
    """The newest result in a run's folder; raises UsageError if there is none."""
    path = newest(folder)
    if path is None:
        raise UsageError(f"{folder}: no cross-validation", "Run: journeyman cross-validate --folds 5")
    return read_model(path, CrossValidation)


def changed_since(folder: Path, result: CrossValidation) -> list[str]:
    """The settings and inputs with which the run would be cross-validated now, and that differ from the result's; what
    keeps them from being compared, if something does."""
    try:
        now = inputs_of_trials(Run(folder, load_config(folder / CONFIG_NAME)))
    except JourneymanError as error:
        return [error.what]
    return changed_keys(result.inputs, now)
