"""Which advice is a change of settings, and whether a change is better: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.config import TrainConfig
from journeyman.manifests import DecisionManifest, RoleDecision
from journeyman.reasons import Reason
from journeyman.reasons import advice as do
from journeyman.records import EVERY_ROLE
from journeyman.stats.groups import sign_flip_of_losses

RATE_FACTOR, EPOCHS_FACTOR, RANK_FACTOR, SHARE_FACTOR = 2.0, 1.5, 2, 2.0
"""By which learning rate, epochs, rank and the share of general rows are changed at a time."""
DROPOUT = 0.1
SHOWN_WORSE = 0.05
"""The chance of losses below which they are no accident."""
_MOST_RANK, _MOST_SHARE = 512, 1.0

Settings = Mapping[str, Any]
"""Dotted key of the config → value."""
Aim = Literal["success", "regressions"]


@dataclass(frozen=True)
class Change:
    """One change of settings.

    Attributes:
        reason: the advice that it carries out.
        role: to which it was given.
        aim: what it is to improve.
    """

    settings: Settings
    reason: Reason
    role: str
    aim: Aim


@dataclass(frozen=True)
class Compared:
    """An adapter with a change beside the run's own, on the same validation rows.

    Attributes:
        rows: that count: those that could be scored for both, and those that the run's own passes and the changed one
            leaves unscored, which are losses.
        wins: rows that only the changed one passes.
        losses: rows that only the run's own passes.
        passed: rows that the changed one passes; `before`: that the run's own does.
        loss: least validation loss of the changed one, in nats per token; None: not known.
        loss_before: of the run's own.
        worse: roles in which more rows are lost than chance explains, or 'all' if they are lost over all roles: see
            shown_worse.
    """

    rows: int
    wins: int
    losses: int
    passed: int
    before: int
    loss: float | None
    loss_before: float | None
    worse: Sequence[str] = ()


def shown_worse(differences: Mapping[str, int]) -> bool:
    """Whether so many losses are no accident (one-sided sign-flip test).

    Args:
        differences: group of related rows → wins minus losses.
    """
    chance = sign_flip_of_losses(differences)
    return chance is not None and chance < SHOWN_WORSE


def is_better(compared: Compared, aim: Aim) -> bool:
    """Whether a change is worth a look at the held-out rows.

    It is if it passes more validation rows than the run's own adapter; if as many, if its validation loss is lower. A
    change that is to lose fewer general answers need not pass more: it is enough that it is not shown to pass fewer. In
    no role may it be shown to. Where no row could be scored, nothing is shown.
    """
    if compared.worse or not compared.rows:
        return False
    if aim == "regressions":
        return True
    if compared.wins != compared.losses:
        return compared.wins > compared.losses
    known = compared.loss is not None and compared.loss_before is not None
    return known and (compared.loss or 0.0) < (compared.loss_before or 0.0)


def _rate(recipe: TrainConfig, factor: float) -> Settings:
    return {"train.learning_rate": float(f"{recipe.learning_rate * factor:.4g}")}


def _higher_rate(recipe: TrainConfig) -> Iterator[Settings]:
    yield _rate(recipe, RATE_FACTOR)


def _lower_rate(recipe: TrainConfig) -> Iterator[Settings]:
    yield _rate(recipe, 1 / RATE_FACTOR)
    if not recipe.lora.dropout:
        yield {"train.lora.dropout": DROPOUT}


def _more_epochs(recipe: TrainConfig) -> Iterator[Settings]:
    yield {"train.epochs": max(recipe.epochs + 1, round(recipe.epochs * EPOCHS_FACTOR))}


def _longer_or_higher(recipe: TrainConfig) -> Iterator[Settings]:
    yield from _more_epochs(recipe)
    yield from _higher_rate(recipe)


def _higher_rank(recipe: TrainConfig) -> Iterator[Settings]:
    """With alpha, so that the update's scale alpha / rank stays."""
    rank = min(_MOST_RANK, recipe.lora.rank * RANK_FACTOR)
    if rank > recipe.lora.rank:
        yield {"train.lora.rank": rank, "train.lora.alpha": recipe.lora.alpha * rank / recipe.lora.rank}


def _gentler(recipe: TrainConfig) -> Iterator[Settings]:
    """More general rows first, as the advice says."""
    share = recipe.retention.share
    if share < _MOST_SHARE:
        yield {"train.retention.share": min(_MOST_SHARE, share * SHARE_FACTOR) if share else do.FIRST_SHARE}
    yield _rate(recipe, 1 / RATE_FACTOR)
    if recipe.epochs > 1:
        yield {"train.epochs": recipe.epochs - 1}


def _whole_answers(recipe: TrainConfig) -> Iterator[Settings]:
    """Without another split: a rule of [curate] would make other held-out rows, on which looks count from 1 again."""
    if recipe.rows.cut_answers != "drop":
        yield {"train.rows.cut_answers": "drop"}


CARRIED_OUT: Mapping[str, Callable[[TrainConfig], Iterator[Settings]]] = {
    do.TrainOnWholeAnswers.code: _whole_answers,
    do.HigherLearningRate.code: _higher_rate,
    do.LowerLearningRate.code: _lower_rate,
    do.MoreEpochs.code: _more_epochs,
    do.FewShotIsBetter.code: _longer_or_higher,
    do.HigherRank.code: _higher_rank,
    do.GentlerTuning.code: _gentler,
}
"""Code of advice → what it makes of a recipe, in the order in which to try it.

No other advice is a change of settings: some needs rows, another teacher or another base."""

_COMMANDS: Mapping[str, str] = {
    do.TrainOnWholeAnswers.code: "journeyman ask-again --only cut, then journeyman run --from-asked-again --redo",
    do.TooFewRows.code: "log more rows, or ask for those without a usable answer: journeyman ask-again",
    do.RowsMemorized.code: "log more rows, or ask for those without a usable answer: journeyman ask-again",
    do.MoreTrainingRows.code: "log more rows, or ask for those without a usable answer: journeyman ask-again",
    do.LookAtTeacher.code: "read its failures in 06-decision/report.html",
}


def is_to_iterate(decision: DecisionManifest) -> bool:
    """Whether the verdict is "iterate" over all roles, or, where nothing is shown over all, for one of them."""
    return decision.verdict == "iterate" or (
        decision.verdict == "insufficient" and any(one.verdict == "iterate" for one in decision.roles.values())
    )


def changes_of(decision: DecisionManifest, recipe: TrainConfig, *, cut_rows: bool = False) -> list[Change]:
    """What the advice makes of the recipe, for all roles first; each change once.

    Args:
        cut_rows: whether training rows whose answers are cut could be left out.
    """
    found: dict[str, Change] = {}
    for role, reason in _advice(decision):
        for settings in _settings(reason, recipe, cut_rows):
            aim: Aim = "regressions" if reason.code == do.GentlerTuning.code else "success"
            found.setdefault(repr(dict(settings)), Change(settings, reason, role, aim))
    return list(found.values())


def left_to_the_user(
    decision: DecisionManifest, recipe: TrainConfig, *, cut_rows: bool = False
) -> list[tuple[Reason, str]]:
    """Advice that no change of settings carries out, each once, and the command that helps; "" if there is none."""
    reasons = dict.fromkeys(reason for _, reason in _advice(decision) if not _settings(reason, recipe, cut_rows))
    return [(reason, _COMMANDS.get(reason.code, "")) for reason in reasons]


def _settings(reason: Reason, recipe: TrainConfig, cut_rows: bool) -> list[Settings]:
    maker = CARRIED_OUT.get(reason.code)
    if maker is None or (maker is _whole_answers and not cut_rows):
        return []
    return list(maker(recipe))


def _advice(decision: DecisionManifest) -> Iterator[tuple[str, Reason]]:
    roles: Sequence[tuple[str, RoleDecision]] = sorted(
        decision.roles.items(), key=lambda one: (one[0] != EVERY_ROLE, one[0])
    )
    for role, made in roles:
        if made.verdict != "deploy":
            yield from ((role, step.reason()) for step in made.next_steps)
