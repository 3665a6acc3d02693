"""What to try next if a role is not deployed, based on its failures, loss curves, arms and speed.

The strongest evidence comes first: the failures themselves, then the curves, then general advice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from journeyman.config import TrainConfig
from journeyman.manifests import ArmSummary, RoleSummary, RuleResult, Rules, TrainedAdapter, VerdictName
from journeyman.reasons import Reason
from journeyman.reasons import advice as do
from journeyman.reasons.deciding import RegressionSeen
from journeyman.reasons.scoring import CutOff, RefusedAnswer
from journeyman.records import FEW_SHOT, TEACHER

_FELL, _ROSE, _MEMORIZED = 0.01, 0.02, 0.5
_FEW_ROWS = 50


@dataclass(frozen=True)
class Case:
    """One role on one file, with everything that advice is based on.

    Attributes:
        arm: the arm that the verdict is about, "tuned" or "tuned@FILE".
        adapter: the role's training run; None if it has none.
        train_rows: number of the role's training rows.
    """

    role: str
    arm: str
    summary: RoleSummary
    rules: Rules
    recipe: TrainConfig
    adapter: TrainedAdapter | None
    train_rows: int
    results: Sequence[RuleResult] = ()

    @property
    def tuned(self) -> ArmSummary:
        return self.summary.arms[self.arm]

    @property
    def failed(self) -> set[str]:
        return {result.rule for result in self.results if result.outcome == "fail"}


def next_steps(case: Case, verdict: VerdictName, rows_needed: int | None) -> list[Reason]:
    """What to change and why, in the order in which to try it."""
    if verdict == "deploy":
        return []
    if verdict == "insufficient":
        return [*_more_evidence(case, rows_needed), *_of_regressions(case)]
    if verdict == "abort":
        return [do.KeepTeacher(), *_of_failures(case)]
    advisers: Mapping[str, Callable[[Case], list[Reason]]] = {
        "success": lambda one: _of_failures(one) or [*_of_arms(one), *_of_curves(one), *_of_data(one)],
        "teacher": lambda one: [] if "success" in one.failed else [*_of_curves(one), *_of_data(one)],
        "latency": _of_latency,
        "memory": lambda one: [do.SmallerInMemory()],
    }
    steps = [step for rule, advise in advisers.items() if rule in case.failed for step in advise(case)]
    return list(dict.fromkeys([*steps, *_of_regressions(case)]))


def _more_evidence(case: Case, rows_needed: int | None) -> list[Reason]:
    """What would settle the rules that the rows leave open; timing more of the same rows settles the latency alone."""
    unknown = {result.rule for result in case.results if result.outcome == "unknown"}
    return [do.TimeMoreRows()] if unknown == {"latency"} else [do.MoreTestRows(rows_needed, case.summary.rows)]


def _of_failures(case: Case) -> list[Reason]:
    """Advice if most answers fail for one reason that has nothing to do with the model's ability."""
    by_code: Counter[str] = Counter()
    for one in case.tuned.failures:
        by_code[one.code] += one.n
    cut, refused, most = by_code[CutOff.code], by_code[RefusedAnswer.code], by_code.total() / 2
    if cut > most:
        return [do.TrainOnWholeAnswers(cut)]
    return [do.LookForRefusals(refused)] if refused > most else []


def _of_arms(case: Case) -> list[Reason]:
    """Advice from the other arms' results on the same rows."""
    steps: list[Reason] = []
    against = case.summary.versus[case.arm]
    teacher, few_shot = case.summary.arms.get(TEACHER), against.get(FEW_SHOT)
    if teacher and teacher.success and teacher.success.passed / teacher.success.n < case.rules.min_success:
        steps.append(do.LookAtTeacher(teacher.success.passed, teacher.success.n))
    if few_shot and few_shot.losses > few_shot.wins:
        steps.append(do.FewShotIsBetter(few_shot.losses, few_shot.wins))
    for other, pair in against.items():
        may_ship = other in case.summary.versus
        if may_ship and pair.losses > pair.wins and (pair.p_value or 1.0) < 0.05:
            steps.append(do.OtherQuantization(other, pair.losses, pair.wins))
    return steps


def _of_curves(case: Case) -> list[Reason]:
    """Advice on training settings from the validation losses."""
    points = case.adapter.validations if case.adapter is not None else []
    if case.adapter is None or len(points) < 2:
        return []
    recipe, first, last = case.recipe, points[0], points[-1]
    best = min(points, key=lambda point: point.loss)
    if best.loss > (1 - _FELL) * first.loss:
        return [do.HigherLearningRate(recipe.learning_rate, first.loss, best.loss)]
    if last.loss > (1 + _ROSE) * best.loss:
        return [do.LowerLearningRate(recipe.learning_rate, best.loss, best.step, last.loss, last.step)]
    if points[-1] is best and last.loss < (1 - _FELL) * points[-2].loss:
        return [do.MoreEpochs(recipe.epochs, points[-2].loss, points[-2].step, last.loss, last.step)]
    trained = case.adapter.train_loss
    if trained is not None and trained < _MEMORIZED * best.loss:
        return []  # it has memorized its rows, so it needs more of them: see _of_data
    return [do.HigherRank(recipe.lora.rank, best.loss)]


def _of_data(case: Case) -> list[Reason]:
    """More rows of this role: always useful, and urgent if there are few of them or they are memorized."""
    adapter, rows = case.adapter, case.train_rows
    if rows < _FEW_ROWS:
        return [do.TooFewRows(rows, _FEW_ROWS)]
    trained, best = (adapter.train_loss, adapter.best_loss) if adapter is not None else (None, None)
    if trained is not None and best is not None and trained < _MEMORIZED * best:
        return [do.RowsMemorized(rows, trained, best)]
    return [do.MoreTrainingRows(rows)]


def _of_latency(case: Case) -> list[Reason]:
    speed = case.tuned.speed
    if speed is None:
        return []
    steps: list[Reason] = []
    if speed.first_token_s is not None and speed.first_token_s > speed.mean_s / 2:
        steps.append(do.ShorterPrompts(speed.first_token_s, speed.mean_s))
    return [*steps, do.FasterBase(speed.mean_s, speed.tokens_per_s)]


def _of_regressions(case: Case) -> list[Reason]:
    lost = any(one.outcome == "fail" and one.reason.code == RegressionSeen.code for one in case.results)
    recipe = case.recipe
    return [do.GentlerTuning(recipe.learning_rate, recipe.epochs, recipe.retention.share)] if lost else []
