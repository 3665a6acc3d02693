"""What to try next where a role is not deployed: from its failures, curves, arms and speed, each with a reason.

The order is that of evidence: what the failures themselves show, then the curves, then the usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from journeyman.config import TrainConfig
from journeyman.manifests import ArmSummary, RoleSummary, RuleResult, Rules, TrainedAdapter, VerdictName
from journeyman.records import FEW_SHOT, TEACHER

_FELL, _ROSE, _MEMORIZED = 0.01, 0.02, 0.5
_FEW_ROWS = 50


@dataclass(frozen=True)
class Case:
    """One role on one file, with all that advice can rest on.

    Attributes:
        arm: the one that is judged, "tuned" or "tuned@FILE".
        adapter: its training run; None where the role has none.
        train_rows: of this role.
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


def next_steps(case: Case, verdict: VerdictName, rows_needed: int | None) -> list[str]:
    """Sentences for a person: what to change, and why."""
    if verdict == "deploy":
        return []
    if verdict == "insufficient":
        return [_more_rows(case, rows_needed), *_faster_enough(case), *_of_probes(case)]
    if verdict == "abort":
        return ["the teacher stays, or a larger base: tuning changed nothing for the better", *_of_failures(case)]
    advisers: Mapping[str, Callable[[Case], list[str]]] = {
        "success": lambda one: _of_failures(one) or [*_of_arms(one), *_of_curves(one), *_of_data(one)],
        "teacher": lambda one: [] if "success" in one.failed else [*_of_curves(one), *_of_data(one)],
        "latency": _of_latency,
        "memory": lambda one: [_OF_MEMORY],
    }
    steps = [step for rule, advise in advisers.items() if rule in case.failed for step in advise(case)]
    return list(dict.fromkeys([*steps, *_of_probes(case)]))


def _more_rows(case: Case, needed: int | None) -> str:
    there = case.summary.rows
    if needed is None:
        return "more test rows of this role, or checks that can score them"
    missing = f", {needed - there} too few" if needed > there else ""
    return f"{needed} test rows of this role would tell, at the rate seen so far; there are {there}{missing}"


def _faster_enough(case: Case) -> list[str]:
    unknown = {result.rule for result in case.results if result.outcome == "unknown"}
    return ["raise evaluate.timed_rows: the mean latency is not known well enough"] if unknown == {"latency"} else []


def _of_failures(case: Case) -> list[str]:
    """Where most answers fail for one reason that is no lack of skill."""
    failures = case.tuned.failures
    cut = sum(count for why, count in failures.items() if why.endswith("did not end by itself: length"))
    refused = sum(count for why, count in failures.items() if "refusal" in why)
    most = sum(failures.values()) / 2
    if cut > most:
        return [
            f"most failures ({cut}) did not end by themselves: train on answers that end (curate.rules.truncated = "
            "'drop', and a teacher that is not cut), or raise evaluate.max_new_tokens"
        ]
    if refused > most:
        return [f"most failures ({refused}) are refusals: look for refusals in the training rows, or take another base"]
    return []


def _of_arms(case: Case) -> list[str]:
    """What the other arms did on the same rows."""
    steps = []
    against = case.summary.versus[case.arm]
    teacher, few_shot = case.summary.arms.get(TEACHER), against.get(FEW_SHOT)
    if teacher and teacher.success and teacher.success.passed / teacher.success.n < case.rules.min_success:
        steps.append(
            f"look at the teacher first: it passes {teacher.success.passed} of {teacher.success.n} of these rows, "
            "and what it does not do cannot be learned from it; mend the checks, or train only on rows that pass"
        )
    if few_shot and few_shot.losses > few_shot.wins:
        steps.append(
            "train longer or at a higher rate: the untuned base with examples in its prompt passes "
            f"{few_shot.losses} rows that tuning fails, and fails only {few_shot.wins} that it passes"
        )
    for other, pair in against.items():
        if other.startswith("tuned") and pair.losses > pair.wins and (pair.p_value or 1.0) < 0.05:
            steps.append(
                f"another quantization: {other} passes {pair.losses} rows that fail here, {pair.wins} the other way"
            )
    return steps


def _of_curves(case: Case) -> list[str]:
    """What the validation losses say of the recipe."""
    points = case.adapter.validations if case.adapter is not None else []
    if case.adapter is None or len(points) < 2:
        return []
    recipe, first, last = case.recipe, points[0], points[-1]
    best = min(points, key=lambda point: point.loss)
    if best.loss > (1 - _FELL) * first.loss:
        return [
            f"a higher learning rate than {recipe.learning_rate:g}, or look at the data: the validation loss hardly "
            f"moved, from {first.loss:.3f} to {best.loss:.3f}"
        ]
    if last.loss > (1 + _ROSE) * best.loss:
        return [
            f"a lower learning rate than {recipe.learning_rate:g}, some train.lora.dropout, or more rows: the "
            f"validation loss rose from {best.loss:.3f} at step {best.step} to {last.loss:.3f} at step {last.step}"
        ]
    if points[-1] is best and last.loss < (1 - _FELL) * points[-2].loss:
        return [
            f"more epochs than {recipe.epochs}: the validation loss still fell at the end, from "
            f"{points[-2].loss:.3f} at step {points[-2].step} to {last.loss:.3f} at step {last.step}"
        ]
    trained = case.adapter.train_loss
    if trained is not None and trained < _MEMORIZED * best.loss:
        return []  # it has learned its rows by heart: rows are what is missing, which the data's advice says
    return [
        f"a higher rank than {recipe.lora.rank}, then a larger base: the validation loss has come to rest at "
        f"{best.loss:.3f}, and the rows are not learned by heart: the model is too small for them"
    ]


def _of_data(case: Case) -> list[str]:
    """More of this role's rows: always of use, and urgent where they are few or learned by heart."""
    adapter, rows = case.adapter, case.train_rows
    if rows < _FEW_ROWS:
        return [f"more training rows of this role: there are {rows}, and below {_FEW_ROWS} a role learns little"]
    trained, best = (adapter.train_loss, adapter.best_loss) if adapter is not None else (None, None)
    if trained is not None and best is not None and trained < _MEMORIZED * best:
        return [
            f"more training rows of this role than {rows}: the loss on them is {trained:.3f}, on others {best:.3f}: "
            "they are learned by heart"
        ]
    return [f"more training rows of this role than {rows}, then a larger base"]


def _of_latency(case: Case) -> list[str]:
    speed = case.tuned.speed
    if speed is None:
        return []
    steps = []
    if speed.first_token_s is not None and speed.first_token_s > speed.mean_s / 2:
        steps.append(f"shorter prompts: {speed.first_token_s:.1f} of {speed.mean_s:.1f} s pass before the first token")
    rate = f" at {speed.tokens_per_s:.0f} tokens/s" if speed.tokens_per_s else ""
    steps.append(
        f"a smaller or more quantized base, or shorter answers in the training rows: {speed.mean_s:.1f} s{rate}"
    )
    return steps


_OF_MEMORY = "a smaller or more quantized base, or a smaller evaluate.context or evaluate.parallel"


def _of_probes(case: Case) -> list[str]:
    if not any(rule.startswith("probe") for rule in case.failed):
        return []
    recipe = case.recipe
    fewer = f"fewer epochs than {recipe.epochs}, " if recipe.epochs > 1 else ""
    return [
        f"a gentler tuning: a lower learning rate than {recipe.learning_rate:g}, {fewer}fewer train.lora.targets, or "
        "other kinds of rows among the training data: it cost what the probes ask for"
    ]
