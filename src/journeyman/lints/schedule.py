"""Warm-up, checkpoints, validation and early stopping, against the number of steps that a run really has."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.lints import EarlyStoppingNever, NoCheckpointInRun, NoValidationInRun, NoValidationRows
from journeyman.reasons.planning import WarmupNeverEnds

_WORTH_A_CHECKPOINT_S = 600


def warm_up(facts: Facts) -> Iterator[Found]:
    """An error if the user asked for it; the default of a few steps may be too long for a very short run."""
    recipe = facts.recipe
    for adapter, run in facts.runs.items():
        if run.steps and recipe.warmup_steps >= run.steps:
            reason = WarmupNeverEnds(recipe.warmup_steps, run.steps, recipe.learning_rate, adapter)
            yield Found(reason, is_error=recipe.warmup_asked)


def checkpoints(facts: Facts) -> Iterator[Found]:
    """Without one inside the run, a kill costs everything; in some trainers it costs the best model as well."""
    recipe, steps = facts.recipe, max((run.steps for run in facts.runs.values()), default=0)
    every = recipe.checkpoint_steps
    if every is None or every < steps or not steps:
        return
    if recipe.best_is_checkpoint:
        yield Found(NoCheckpointInRun(every, steps, keeps_best=True), is_error=True)
        return
    lost = facts.train_s if facts.train_s is not None else float("inf")
    if min(lost, recipe.checkpoint_s or lost) > _WORTH_A_CHECKPOINT_S:
        yield Found(NoCheckpointInRun(every, steps, recipe.checkpoint_s or facts.train_s))


def validation(facts: Facts) -> Iterator[Found]:
    """Nothing to validate on, or no validation before the end."""
    recipe, steps = facts.recipe, max((run.steps for run in facts.runs.values()), default=0)
    if facts.roles and not facts.val_rows:
        yield Found(NoValidationRows())
    elif recipe.validation_steps is not None and steps and recipe.validation_steps >= steps > 1:
        often = max(1, steps // 6)
        yield Found(NoValidationInRun(recipe.validation_steps, steps, often), is_error=recipe.patience is not None)


def early_stopping(facts: Facts) -> Iterator[Found]:
    """The first validation is always the best so far: `patience` more are needed to stop, and one more to gain."""
    patience = facts.recipe.patience
    if patience is None or not facts.val_rows:
        return
    most = max((run.validations for run in facts.runs.values() if run.validations is not None), default=None)
    if most is not None and patience + 1 >= most:
        yield Found(EarlyStoppingNever(patience, most))
