"""The work of iterating: trials on the validation rows, and the pipeline for the run itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman import stage_settings
from journeyman.artifacts import ADAPTER_FILE, hash_of
from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.errors import StaleArtifact
from journeyman.inference.arm_runner import RunningEngine
from journeyman.inference.engines import running_engine
from journeyman.iterating.changes import Compared, Settings, shown_worse
from journeyman.iterating.ledger import FOLDER
from journeyman.iterating.protocol import Estimate, Shown
from journeyman.locking import locked
from journeyman.manifests import AdapterManifest, DecisionManifest, EvaluationManifest
from journeyman.pipeline import run_pipeline
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example, Score
from journeyman.runs import SEALED, Run, read_result
from journeyman.trials.answering import Arm, score_rows, tuned
from journeyman.trials.rows import rows_of
from journeyman.trials.training import plan_of_trial, roles_of, train_trial

_NOW, _CHANGED = tuned("now"), tuned("changed")
_TRAINED = ("train.jsonl", "val.jsonl")


class RunWork:
    """The work on a run folder; see protocol.Work.

    Args:
        overrides: the user's own, such as "evaluate.parallel=2"; those of a change come after them.
    """

    def __init__(
        self, root: Path, overrides: Sequence[str], reporter: Reporter, running_engine: RunningEngine = running_engine
    ) -> None:
        self._root, self._overrides, self._reporter = root, overrides, reporter
        self._running_engine = running_engine
        self._session: str | None = None

    def session(self) -> str:
        """Hash of the settings and rows from which iterating begins; makes the dataset if there is none.

        Raises:
            JourneymanError: as run_pipeline.
        """
        run = self._run({})
        for _ in run_pipeline(run, "curate", self._reporter):
            pass
        files = read_result(self._root, "curate")[0].files
        self._session = hash_of(
            {
                "rows": {name: files.get(name) for name in (*_TRAINED, SEALED)},
                "training": dict(stage_settings.of_train(run)),
                "judging": dict(stage_settings.of_judging(run)),
            }
        )
        return self._session

    def shown(self, settings: Settings, *, redo: bool) -> Shown:
        """With `redo`, from the plan on only: new rows would make another split, on which looks count from 1 again.

        Raises:
            StaleArtifact: the logs, or the settings from which iterating began, were changed since.
        """
        if redo:
            self._refuse_changed()
        run = self._run(settings)
        for _ in run_pipeline(run, "decide", self._reporter, redo_from="plan" if redo else None):
            pass
        decision, evaluation = run.result("decide", DecisionManifest), run.result("evaluate", EvaluationManifest)
        rate = evaluation.roles[EVERY_ROLE].arms[decision.ships].success
        return Shown(
            decision, run.config.train, evaluation.look,
            None if rate is None else rate.passed, None if rate is None else rate.n, has_cut_rows(rows_of(run).train),
        )  # fmt: skip

    def estimate(self, now: Settings, changed: Settings) -> Estimate:
        """From what the run's own training and answers took, `now`."""
        run, rows = self._run(changed), rows_of(self._run(changed))
        predicted = plan_of_trial(run, run.config.train, rows).estimated_train_s
        own = plan_of_trial(run, self._run(now).config.train, rows).estimated_train_s
        adapter = run.result("train", AdapterManifest)
        if own > 0 and adapter.train_s > 0:
            predicted *= adapter.train_s / own
        decision, evaluation = run.result("decide", DecisionManifest), run.result("evaluate", EvaluationManifest)
        arm = evaluation.roles[EVERY_ROLE].arms[decision.ships]
        speed = arm.under_load or arm.speed
        if speed is None:
            return Estimate(predicted, predicted, answers_known=False)
        each = speed.mean_s / max(1, speed.load or 1)
        suite = sum(one.n for of in evaluation.regressions.values() for one in of.values())
        alone = 0.0 if arm.under_load is None or arm.speed is None else arm.speed.n * arm.speed.mean_s
        files = len(evaluation.files)
        return Estimate(
            predicted + each * len(rows.val), predicted + files * (each * (evaluation.rows + suite) + alone)
        )

    def compare(self, now: Settings, changed: Settings) -> Compared:
        self._refuse_changed()
        before, run = self._run(now), self._run(changed)
        adapter = before.result("train", AdapterManifest)
        folder = before.checked_folder("train")
        with locked(self._root):
            rows = rows_of(run)
            made, files = train_trial(run, run.config.train, rows, place_of_trial(run), self._reporter)
            own = {name: folder / one.folder / ADAPTER_FILE for name, one in adapter.adapters.items()}
            arms = [Arm(_NOW, rows.val, own), Arm(_CHANGED, rows.val, files)]
            scores = score_rows(run, arms, self._root / FOLDER, self._reporter, self._running_engine)
        groups = {row.id: row.group for row in rows.val}
        return compared(scores[_NOW], scores[_CHANGED], groups, loss_of(adapter), loss_of(made))

    def _refuse_changed(self) -> None:
        """Raises StaleArtifact if logs or settings are no longer those from which iterating began."""
        began = self._session
        if began not in (None, self.session()):
            self._session = began
            raise StaleArtifact(
                f"{self._root / CONFIG_NAME}: [train] or the roles' checks were changed while iterating",
                "Restore them and give the same command; or make the run with them: journeyman run --redo",
            )

    def _run(self, settings: Settings) -> Run:
        return Run(self._root, config_with(self._root, self._overrides, settings))


def config_with(root: Path, overrides: Sequence[str], settings: Settings) -> Config:
    """The config with the user's overrides and these settings."""
    changed = [f"{key}={value!r}" for key, value in settings.items()]
    return load_config(root / CONFIG_NAME, [*overrides, *changed])


def place_of_trial(run: Run) -> Path:
    """The folder of a trial with these settings on these rows: other rows must not resume its checkpoints."""
    files = read_result(run.root, "curate")[0].files
    everything = {
        "rows": [files[name] for name in _TRAINED],
        "train": run.config.train.model_dump(mode="json"),
        "training": dict(stage_settings.of_train(run)),
    }
    return run.root / FOLDER / hash_of(everything)[:12]


def has_cut_rows(rows: Sequence[Example]) -> bool:
    """Whether answers are cut, and every role has others."""
    whole = [row for row in rows if row.ends]
    return len(whole) < len(rows) and roles_of(whole) == roles_of(rows)


def compared(
    now: Sequence[Score], changed: Sequence[Score], groups: Mapping[str, str], loss_before: float | None,
    loss: float | None,
) -> Compared:  # fmt: skip
    """Two adapters on the same rows; a row that passed and can no longer be scored is lost.

    Args:
        groups: row → its group of related rows.
    """
    outcomes = {one.id: one.outcome for one in now}
    pairs: list[tuple[bool, bool]] = []
    moved: dict[str, Counter[str]] = {}
    for one in changed:
        before = outcomes[one.id]
        if before == "unscored" or (before, one.outcome) == ("fail", "unscored"):
            continue
        pairs.append((before == "pass", one.outcome == "pass"))
        for role in (one.role, EVERY_ROLE):
            moved.setdefault(role, Counter())[groups[one.id]] += (one.outcome == "pass") - (before == "pass")
    worse = [role for role in sorted(moved) if shown_worse(moved[role])]
    return Compared(
        rows=len(pairs), wins=pairs.count((False, True)), losses=pairs.count((True, False)),
        passed=sum(after for _, after in pairs), before=sum(before for before, _ in pairs), loss=loss,
        loss_before=loss_before, worse=[role for role in worse if role != EVERY_ROLE] or worse,
    )  # fmt: skip


def loss_of(made: AdapterManifest) -> float | None:
    """The mean of the adapters' least validation losses; None: one of them was not validated."""
    losses = [one.best_loss for one in made.adapters.values()]
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known) if known and len(known) == len(losses) else None
