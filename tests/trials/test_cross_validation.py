"""Cross-validation: who trains on which rows, that each is scored once, related rows, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import journeyman
from conftest import StopsAfter, example_of, log_row
from journeyman.config import load_config
from journeyman.errors import Interrupted, NoGo, UsageError
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.records import BASE, TUNED, Example, Message, Score
from journeyman.runs import SEALED, Run
from journeyman.stats.rates import wilson
from journeyman.trials import cross_validation
from journeyman.trials.cross_validation import cross_validate, folds_of, summaries
from journeyman.trials.rows import TrialRows, rows_of
from test_pipeline import call


def _row(number: int, role: str = "coder", group: str = "") -> Example:
    made = example_of([Message(role="user", content=f"task {number}")], "yes", id=f"{role}{number}", role=role)
    return made.model_copy(update={"group": group or f"{role}-{number}"})


class TestFolds:
    def test_rows_that_are_scored_neither_train_nor_stop_the_training(self) -> None:
        rows = TrialRows(
            [_row(n, group=f"g{n // 2}") for n in range(20)], [_row(n, group=f"g{n // 2}") for n in range(20, 30)]
        )
        seen = []
        for kept, scored in folds_of(rows, 5):
            groups = {row.group for row in scored}
            assert not groups & {row.group for row in [*kept.train, *kept.val]}
            assert len(kept.train) + len(kept.val) + len(scored) == 30
            assert {row.id for row in kept.train} <= {row.id for row in rows.train}
            assert {row.id for row in kept.val} <= {row.id for row in rows.val} and kept.val
            seen += [row.id for row in scored]
        assert sorted(seen) == sorted(row.id for row in [*rows.train, *rows.val])

    def test_each_fold_has_rows_to_train_on_and_rows_to_stop_early(self) -> None:
        rows = TrialRows([_row(n) for n in range(8)], [_row(n) for n in range(8, 10)])
        for count in (2, 3, 5, 10):
            for kept, scored in folds_of(rows, count):
                assert kept.train and kept.val and scored

    def test_validation_rows_are_left_of_every_role_that_has_several_groups(self) -> None:
        val = [_row(n, role) for n in range(8, 10) for role in ("coder", "tester", "writer")]
        rows = TrialRows([_row(n, role) for n in range(8) for role in ("coder", "tester", "writer")], val)
        for kept, _ in folds_of(rows, 2):
            for of in (kept.train, kept.val):
                assert {row.role for row in of} == {"coder", "tester", "writer"}

    def test_a_fold_without_rows_to_train_on_or_to_stop_early_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"fold \d of 2 would have no training rows"):
            folds_of(TrialRows([_row(0)], [_row(1)]), 2)
        with pytest.raises(UsageError, match=r"fold \d of 3 would have no validation rows.*curate.val_share"):
            folds_of(TrialRows([_row(n) for n in range(8)], [_row(9)]), 3)

    @pytest.mark.parametrize("count", [0, 1, 4])
    def test_more_folds_than_groups_are_refused(self, count: int) -> None:
        with pytest.raises(UsageError, match=r"of 3 groups of related rows.*--folds from 2 to 3"):
            folds_of(TrialRows([_row(n) for n in range(3)], []), count)


def test_related_rows_count_as_fewer_and_both_arms_are_compared_on_the_same_rows() -> None:
    rows = [_row(n, group=f"g{n // 4}") for n in range(24)] + [_row(n, "tester") for n in range(10)]

    def scores(arm: str, passes: Callable[[int], bool]) -> list[Score]:
        return [
            Score(id=row.id, role=row.role, arm=arm, outcome="pass" if passes(place) else "fail", check="exact")
            for place, row in enumerate(rows)
        ]

    base, folds = scores(BASE, lambda place: place % 4 == 0), scores("tuned@fold-1", lambda place: place % 4 < 2)
    found = summaries(rows, base, folds, 0.95, 0.975)
    assert list(found) == ["all", "coder", "tester"]
    coder = found["coder"].arms[TUNED].success
    assert coder is not None and (coder.passed, coder.n, coder.effective_n) == (12, 24, 6)
    assert (coder.low, coder.high) == wilson(3, 6, 0.975)
    pair = found["coder"].versus[TUNED][BASE]
    assert (pair.wins, pair.losses, pair.ties) == (6, 0, 18)
    alone = found["tester"].arms[TUNED].success
    assert alone is not None and alone.effective_n == alone.n == 10 and found["all"].rows == 34


@pytest.fixture
def folder(make_run: Callable[..., Path]) -> Path:
    rows = [log_row(n) for n in range(24)] + [log_row(100, "tester")]
    return make_run(rows, "[curate]\ntest_share = 0.2\nval_share = 0.2\n[decide]\nconfidence = 0.9\n")


@pytest.mark.slow
def test_a_run_is_cross_validated_resumed_and_shown_and_the_held_out_rows_stay_closed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(folder, load_config(folder / "journeyman.toml"))
    list(run_pipeline(run, "plan", SilentReporter()))
    sealed = run.folder("curate") / SEALED
    sealed.rename(tmp_path / "away")  # whoever opens it fails
    with pytest.raises(Interrupted):
        cross_validate(run, 3, StopsAfter(2))
    trained: list[Path] = []
    original = cross_validation.train_trial

    def counted(*given: object) -> object:
        trained.append(given[3])  # type: ignore[arg-type]
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cross_validation, "train_trial", counted)
    result, path = cross_validate(run, 3, SilentReporter())
    assert [one.name for one in trained] == ["fold-1", "fold-2", "fold-3"]
    assert {one.parent for one in trained} == {path.parent}, "what was begun is resumed in its place"
    rows = rows_of(run)
    every = [*rows.train, *rows.val]
    assert sum(one.scored for one in result.folds) + sum(result.left_out.values()) == len(every)
    pooled = result.roles["all"]
    assert pooled.rows == len(every) - sum(result.left_out.values())
    assert pooled.arms[TUNED].success is not None and pooled.arms[TUNED].success.n == pooled.rows
    assert sum(one.passed for one in result.folds) == pooled.arms[TUNED].success.passed
    assert result.confidence == 0.9
    (tmp_path / "away").rename(sealed)

    assert call("cross-validate", "--dir", folder, "--folds", "3") == 0
    said = capsys.readouterr()
    assert "training 3 folds: about" in said.err
    assert "cross-validation in 3 folds" in said.out and "not about the file that ships" in said.out
    assert call("show", "cross-validation", "--dir", folder, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(path.read_text())


def test_a_role_that_only_one_group_has_is_left_out_and_counted(folder: Path) -> None:
    run = Run(folder, load_config(folder / "journeyman.toml"))
    list(run_pipeline(run, "plan", SilentReporter()))
    rows = rows_of(run)
    assert any(row.role == "tester" for row in [*rows.train, *rows.val]), "its only row was held out"
    result, _ = cross_validate(run, 2, SilentReporter())
    assert result.left_out == {"tester": 1} and "tester" not in result.roles


def test_rows_of_a_role_without_an_adapter_are_left_out_and_not_answered_by_the_base(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of_log = [log_row(n, role) for n in range(12) for role in ("coder", "tester")]
    folder = make_run(rows_of_log, "[curate]\nval_share = 0.2\n")
    settings = ["train.adapters=per-role", "train.rows.cut_answers=drop"]
    run = Run(folder, load_config(folder / "journeyman.toml", settings))
    list(run_pipeline(run, "plan", SilentReporter()))
    found = rows_of(run)
    cut = [row.model_copy(update={"ends": row.role != "tester"}) for row in found.train]
    rows = TrialRows(cut, found.val)
    monkeypatch.setattr(cross_validation, "rows_of", lambda _: rows)
    result, _ = cross_validate(run, 2, SilentReporter())
    testers = sum(row.role == "tester" for row in [*rows.train, *rows.val])
    assert result.left_out == {"tester": testers} and list(result.roles) == ["all", "coder"]
    coders = sum(row.role == "coder" for row in rows.train)
    assert sum(one.trained for one in result.folds) == coders  # in one of two folds each


def test_another_recipe_leaves_the_plan_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list(run_pipeline(Run(folder, load_config(folder / "journeyman.toml")), "plan", SilentReporter()))
    before = (folder / "03-plan" / "manifest.json").read_bytes()
    assert call("cross-validate", "--dir", folder, "--folds", "2", "--set", "train.epochs=1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["epochs"] == 1
    assert (folder / "03-plan" / "manifest.json").read_bytes() == before
    assert not list(folder.glob(".recipe-*"))
    assert call("show", "cross-validation", "--dir", folder) == 0
    assert "made with other inputs than the run has now: train.epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_other_rows_get_other_folds_and_the_old_result_is_shown_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("cross-validate", "--dir", folder, "--folds", "2") == 0
    capsys.readouterr()
    assert call("show", "cross-validation", "--dir", folder) == 0
    assert "other inputs" not in capsys.readouterr().err
    with (folder / "journeyman.toml").open("a") as file:
        file.write("[roles.coder]\nsystem_prompt = 'Be short.'\n")
    assert call("plan", "--dir", folder, "--redo") == 0
    capsys.readouterr()
    assert call("show", "cross-validation", "--dir", folder) == 0
    assert "other inputs than the run has now: 02-dataset" in capsys.readouterr().err
    assert call("cross-validate", "--dir", folder, "--folds", "2") == 0  # ids and groups are the same
    assert len(list((folder / "cross-validation").glob("*/result.json"))) == 2
    capsys.readouterr()
    assert call("show", "cross-validation", "--dir", folder) == 0
    assert "other inputs" not in capsys.readouterr().err


def test_a_plan_with_errors_is_not_trained_on(folder: Path) -> None:
    with pytest.raises(NoGo, match="warm"):
        journeyman.open(folder, settings={"train.warmup_steps": 500}).cross_validate(3)
    assert not (folder / "cross-validation").exists()


def test_nothing_to_show_is_said(folder: Path) -> None:
    assert call("show", "cross-validation", "--dir", folder) == 2
