"""Cross-validation over the training and validation rows: evidence about a recipe, where few rows are held out.

Each fold trains adapters as the run would, without the fold's rows, and answers only these; the validation rows of the
other folds stop training early, so that no row takes part in choosing the adapter that is scored on it. The base
answers the same rows. None of these adapters is the file that ships, and the held-out test rows are never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from journeyman.artifacts import write_model
from journeyman.config import TrainConfig
from journeyman.errors import Interrupted, UsageError
from journeyman.inference.arm_runner import RunningEngine
from journeyman.inference.engines import running_engine
from journeyman.manifests import Manifest, PlanManifest, RoleSummary
from journeyman.protocols import Reporter, adapter_of
from journeyman.records import BASE, EVERY_ROLE, TUNED, Example, Score
from journeyman.runs import Run
from journeyman.scoring.summary import Results
from journeyman.training.row_rules import trained_rows
from journeyman.trials.answering import Arm, score_rows, tuned
from journeyman.trials.inputs import inputs_of_trials, key_of_training
from journeyman.trials.rows import TrialRows, rows_of
from journeyman.trials.training import plan_of_trial, roles_of, train_trial

FOLDER, RESULT = "cross-validation", "result.json"


class FoldResult(Manifest):
    """One fold's adapters on the fold's rows."""

    trained: int = Field(description="rows that the adapters were trained on")
    validated: int = Field(description="rows that stopped the training early")
    passed: int
    scored: int = Field(description="rows that the checks could score")
    base_passed: int
    train_s: float


class CrossValidation(Manifest):
    """What cross-validation showed of a recipe."""

    recipe: TrainConfig
    inputs: dict[str, str] = Field(
        default_factory=dict, description="setting or input → its value or hash; others make it stale"
    )
    confidence: float = Field(description="of the interval of all rows")
    role_confidence: float = Field(description="of each role's intervals, as in the plan")
    folds: list[FoldResult]
    roles: dict[str, RoleSummary] = Field(description="role → the folds' adapters together (tuned), and the base")
    left_out: dict[str, int] = Field(
        description="role → rows that no adapter could answer, because it was trained on none of that role"
    )


def folds_of(rows: TrialRows, count: int) -> list[tuple[TrialRows, list[Example]]]:
    """For each fold what to train on, and the rows to score.

    Raises:
        UsageError: there are fewer groups of related rows than folds, less than 2 folds, or a fold would leave nothing
            to train on, or nothing to stop the training with although there are validation rows.
    """
    groups = {row.group for row in [*rows.train, *rows.val]}
    if not 2 <= count <= len(groups):
        raise UsageError(
            f"{count} folds of {len(groups)} groups of related rows",
            f"Give --folds from 2 to {len(groups)}" if len(groups) > 1 else "Log more rows",
        )
    made: list[tuple[TrialRows, list[Example]]] = []
    for fold in rows.folds(count):
        away = {row.id for row in fold.val}
        left = TrialRows(
            [row for row in rows.train if row.id not in away], [row for row in rows.val if row.id not in away]
        )
        number = len(made) + 1
        if not left.train:
            raise UsageError(f"fold {number} of {count} would have no training rows", "Log more rows")
        if rows.val and not left.val:
            raise UsageError(
                f"fold {number} of {count} would have no validation rows, which stop the training early",
                "Log more rows, or set curate.val_share higher, or to 0 to train without them",
            )
        made.append((left, list(fold.val)))
    return made


def place_of_folds(run: Run, rows: TrialRows, count: int) -> Path:
    """The folder of this recipe's folds on these rows; the same command finds it again."""
    return run.root / FOLDER / f"{count}-folds-{key_of_training(run, run.config.train, rows)}"


def expected_training_s(run: Run, count: int) -> float:
    """How long training all folds will probably take, in seconds: the plan's time for the run, by tokens.

    Raises:
        NoGo: a fold does not fit in memory.
        UsageError: as folds_of.
    """
    rows, _ = folds_of(rows_of(run), count)[0]
    fold, plan = plan_of_trial(run, run.config.train, rows), run.result("plan", PlanManifest)
    return count * plan.estimated_train_s * fold.total_tokens / max(1, plan.total_tokens)


def cross_validate(
    run: Run, count: int, reporter: Reporter, running_engine: RunningEngine = running_engine
) -> tuple[CrossValidation, Path]:
    """Trains and scores every fold of the run's training and validation rows.

    Folds that are trained, and answers that are kept, are not made again.

    Returns:
        The result, and the file that holds it.

    Raises:
        UsageError: as folds_of.
        Interrupted: asked to stop; the same call resumes.
        JourneymanError: as train_trial and score_rows.
    """
    rows, folds, inputs = rows_of(run), [], inputs_of_trials(run)
    place = place_of_folds(run, rows, count)
    arms: list[Arm] = []
    left_out: Counter[str] = Counter()
    for number, (kept, scored) in enumerate(folds_of(rows, count), start=1):
        if reporter.stop_requested:
            raise Interrupted(f"stopped before fold {number}", "The same command resumes")
        reporter.say(f"fold {number} of {count}: {len(kept.train)} training rows, {len(scored)} rows to score")
        own = trained_rows(kept.train, run.config.train.rows)
        if not own:
            raise UsageError(f"fold {number} of {count} has no row that [train.rows] keeps", "Log more rows")
        made, files = train_trial(run, run.config.train, kept, place / f"fold-{number}", reporter)
        learned = [role for role in roles_of(own) if adapter_of(role, files) is not None]
        left_out.update(row.role for row in scored if row.role not in learned)
        arms.append(Arm(tuned(f"fold-{number}"), [row for row in scored if row.role in learned], files))
        folds.append((TrialRows(own, kept.val), sum(one.train_s for one in made.adapters.values())))
    asked = [row for arm in arms for row in arm.rows]
    scores = score_rows(run, [Arm(BASE, asked), *arms], place / "answers", reporter, running_engine)
    rules = run.result("plan", PlanManifest).rules
    base = {one.id: one for one in scores[BASE]}
    result = CrossValidation(
        recipe=run.config.train,
        inputs=inputs,
        confidence=rules.confidence,
        role_confidence=rules.role_confidence,
        folds=[
            _fold(kept, train_s, scores[arm.name], [base[row.id] for row in arm.rows])
            for (kept, train_s), arm in zip(folds, arms, strict=True)
        ],
        roles=summaries(
            asked, scores[BASE], [one for arm in arms for one in scores[arm.name]], rules.confidence,
            rules.role_confidence,
        ),
        left_out=dict(left_out),
    )  # fmt: skip
    write_model(place / RESULT, result)
    return result, place / RESULT


def summaries(
    rows: Sequence[Example], base: Sequence[Score], of_folds: Sequence[Score], confidence: float, role_confidence: float
) -> Mapping[str, RoleSummary]:
    """Role → the adapters of all folds, each on its own rows, beside the base on the same rows."""
    together = [one.model_copy(update={"arm": TUNED}) for one in of_folds]
    groups = {row.id: row.group for row in rows}
    results = Results(groups, [BASE, TUNED], [TUNED], [], [], [*base, *together])
    return {
        role: results.summary(role, confidence if role == EVERY_ROLE else role_confidence)
        for role in [EVERY_ROLE, *roles_of(rows)]
    }


def _fold(kept: TrialRows, train_s: float, scores: Sequence[Score], base: Sequence[Score]) -> FoldResult:
    return FoldResult(
        trained=len(kept.train),
        validated=len(kept.val),
        passed=_passed(scores),
        scored=sum(one.outcome != "unscored" for one in scores),
        base_passed=_passed(base),
        train_s=train_s,
    )


def _passed(scores: Sequence[Score]) -> int:
    return sum(one.outcome == "pass" for one in scores)


def newest(root: Path) -> Path | None:
    """The result that was written last in a run's folder; None if there is none."""
    made = list((root / FOLDER).glob(f"*/{RESULT}"))
    return max(made, key=lambda path: path.stat().st_mtime_ns, default=None)
