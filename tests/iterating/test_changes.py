"""Which advice becomes which settings, and which change is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conftest import example_of
from journeyman.config import RetentionConfig, TrainConfig
from journeyman.iterating.changes import (
    CARRIED_OUT,
    Compared,
    changes_of,
    is_better,
    is_to_iterate,
    left_to_the_user,
)
from journeyman.iterating.working import has_cut_rows
from journeyman.manifests import DecisionManifest, RoleDecision, VerdictName
from journeyman.reasons import Reason
from journeyman.reasons import advice as do

HIGHER = do.HigherLearningRate(5e-4, 2.0, 1.99)
LOWER = do.LowerLearningRate(5e-4, 1.0, 10, 1.5, 30)
RECIPE = TrainConfig(retention=RetentionConfig(share=0.1))


def decision(verdict: VerdictName, **advice: list[Reason]) -> DecisionManifest:
    """Roles with the same verdict, and advice for each."""
    roles = {
        role: RoleDecision(
            verdict=verdict, stretch=False, reasons=[], rows_needed=None, next_steps=[one.record() for one in steps]
        )
        for role, steps in advice.items()
    }
    return DecisionManifest(verdict=verdict, roles=roles, deployed_roles=[], ships="tuned", others={}, notes=[])


@pytest.mark.parametrize(
    ("advice", "settings"),
    [
        (HIGHER, [{"train.learning_rate": 1e-3}]),
        (LOWER, [{"train.learning_rate": 2.5e-4}, {"train.lora.dropout": 0.1}]),
        (do.MoreEpochs(3, 1.0, 9, 0.9, 12), [{"train.epochs": 4}]),
        (do.FewShotIsBetter(3, 1), [{"train.epochs": 4}, {"train.learning_rate": 1e-3}]),
        (do.HigherRank(16, 1.0), [{"train.lora.rank": 32, "train.lora.alpha": 64.0}]),
        (
            do.GentlerTuning(5e-4, 3),
            [{"train.retention.share": 0.2}, {"train.learning_rate": 2.5e-4}, {"train.epochs": 2}],
        ),
    ],
)
def test_advice_becomes_settings_by_a_stated_factor(advice: Reason, settings: list[dict[str, float]]) -> None:
    assert [dict(one.settings) for one in changes_of(decision("iterate", all=[advice]), RECIPE)] == settings
    assert not left_to_the_user(decision("iterate", all=[advice]), RECIPE)


def test_limits_of_a_recipe_end_its_advice() -> None:
    at_most = RECIPE.model_copy(update={"lora": RECIPE.lora.model_copy(update={"rank": 512})})
    of = decision("iterate", all=[do.HigherRank(512, 1.0)])
    assert changes_of(of, at_most) == [] and left_to_the_user(of, at_most) == [(do.HigherRank(512, 1.0), "")]
    retention = RECIPE.retention.model_copy(update={"share": 1.0})
    once = RECIPE.model_copy(update={"epochs": 1, "retention": retention})
    gentler = changes_of(decision("iterate", all=[do.GentlerTuning(5e-4, 1)]), once)
    assert [dict(one.settings) for one in gentler] == [{"train.learning_rate": 2.5e-4}]
    assert {one.aim for one in gentler} == {"regressions"}
    half = RECIPE.model_copy(update={"retention": RECIPE.retention.model_copy(update={"share": 0.3})})
    first = changes_of(decision("iterate", all=[do.GentlerTuning(5e-4, 1, 0.3)]), half)[0]
    assert first.settings == {"train.retention.share": 0.6}
    none = RECIPE.model_copy(update={"retention": RetentionConfig(share=0)})
    first = changes_of(decision("iterate", all=[do.GentlerTuning(5e-4, 1)]), none)[0]
    assert first.settings == {"train.retention.share": do.FIRST_SHARE}


def test_all_roles_come_first_and_each_change_comes_once() -> None:
    found = changes_of(decision("iterate", coder=[LOWER, HIGHER], all=[HIGHER]), RECIPE)
    assert [(one.role, dict(one.settings)) for one in found] == [
        ("all", {"train.learning_rate": 1e-3}),
        ("coder", {"train.learning_rate": 2.5e-4}),
        ("coder", {"train.lora.dropout": 0.1}),
    ]


def test_what_needs_rows_or_a_person_is_left_with_the_command_that_helps() -> None:
    cut, teacher = do.TrainOnWholeAnswers(9), do.LookAtTeacher(3, 9)
    of = decision("iterate", all=[cut, HIGHER], coder=[cut, teacher])
    left = left_to_the_user(of, RECIPE)
    assert [reason for reason, _ in left] == [cut, teacher]
    assert "journeyman ask-again" in left[0][1]
    assert len(changes_of(of, RECIPE)) == 1


def test_cut_answers_are_left_out_of_training_if_there_are_any_and_other_rows_of_each_role() -> None:
    of = decision("iterate", all=[do.TrainOnWholeAnswers(9)])
    (change,) = changes_of(of, RECIPE, cut_rows=True)
    assert change.settings == {"train.rows.cut_answers": "drop"} and not left_to_the_user(of, RECIPE, cut_rows=True)
    dropped = RECIPE.model_copy(update={"rows": RECIPE.rows.model_copy(update={"cut_answers": "drop"})})
    assert not changes_of(of, dropped, cut_rows=True) and left_to_the_user(of, dropped, cut_rows=True)
    whole, cut = (example_of([], "yes", id=str(ends), ends=ends) for ends in (True, False))
    assert has_cut_rows([whole, cut]) and not has_cut_rows([whole]) and not has_cut_rows([cut])
    assert not has_cut_rows([whole, cut.model_copy(update={"role": "tester"})])


def test_roles_that_are_deployed_need_nothing() -> None:
    of = decision("iterate", all=[HIGHER], coder=[do.MoreEpochs(3, 1.0, 9, 0.9, 12)])
    good = of.roles["coder"].model_copy(update={"verdict": "deploy"})
    assert len(changes_of(of.model_copy(update={"roles": {**of.roles, "coder": good}}), RECIPE)) == 1


def test_only_an_iterate_verdict_is_worked_on() -> None:
    assert is_to_iterate(decision("iterate", all=[HIGHER]))
    assert not any(is_to_iterate(decision(one, all=[])) for one in ("deploy", "abort", "insufficient"))
    mixed = decision("insufficient", all=[], coder=[HIGHER])
    role = mixed.roles["coder"].model_copy(update={"verdict": "iterate"})
    assert is_to_iterate(mixed.model_copy(update={"roles": {**mixed.roles, "coder": role}}))


def test_every_advice_that_is_carried_out_exists() -> None:
    codes = {one.code for one in vars(do).values() if isinstance(one, type) and getattr(one, "code", "")}
    assert set(CARRIED_OUT) < codes


def _compared(wins: int, losses: int, loss: float | None = 1.0, before: float | None = 1.0) -> Compared:
    return Compared(40, wins, losses, 20 + wins, 20 + losses, loss, before)


@pytest.mark.parametrize(
    ("compared", "success", "regressions"),
    [
        (_compared(3, 2), True, True),
        (_compared(2, 3), False, True),
        (Compared(0, 0, 0, 0, 0, 0.9, 1.0), False, False),
        (_compared(2, 2, 0.9, 1.0), True, True),
        (_compared(2, 2, 1.0, 1.0), False, True),
        (_compared(0, 0, None, 1.0), False, True),
        (_compared(2, 3, 0.5, 1.0), False, True),
    ],
)
def test_better_is_more_rows_then_a_lower_loss_and_for_regressions_not_shown_to_be_worse(
    compared: Compared, success: bool, regressions: bool
) -> None:
    assert is_better(compared, "success") == success
    assert not is_better(replace(compared, worse=["coder"]), "success"), "no role may be shown to lose"
    assert not is_better(replace(compared, worse=["coder"]), "regressions")
    assert is_better(compared, "regressions") == regressions
