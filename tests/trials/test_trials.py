"""Trials on a tiny model: rows, training in a folder of its own, and scores by the engine that serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import example_of
from journeyman.artifacts import hash_of_file
from journeyman.config import load_config
from journeyman.errors import InputError
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.records import BASE, Example, Message
from journeyman.runs import SEALED, Run
from journeyman.trials.answering import Arm, score_rows, tuned
from journeyman.trials.rows import TrialRows, rows_of
from journeyman.trials.training import plan_of_trial, train_trial


def _row(number: int, role: str = "coder", group: str = "") -> Example:
    made = example_of([Message(role="user", content=f"task {number}")], "yes", id=f"{role}{number}", role=role)
    return made.model_copy(update={"group": group or f"{role}-{number}"})


def _rows(count: int, *roles: str) -> list[Example]:
    return [_row(number, role) for role in roles for number in range(count)]


class TestRows:
    def test_a_part_has_its_share_of_each_role_and_larger_parts_contain_smaller_ones(self) -> None:
        rows = TrialRows(_rows(40, "coder", "tester"), _rows(4, "coder"))
        parts = [rows.part(share) for share in (0.1, 0.25, 0.5, 1.0)]
        for share, part in zip((0.1, 0.25, 0.5, 1.0), parts, strict=True):
            counts = [sum(row.role == role for row in part.train) for role in ("coder", "tester")]
            assert counts == [40 * share] * 2
            assert part.val == rows.val
        ids = [{row.id for row in part.train} for part in parts]
        assert ids[0] < ids[1] < ids[2] < ids[3]
        assert {row.id for row in rows.part(0.25, seed=1).train} != ids[1]

    def test_a_group_stays_together_in_parts_and_folds(self) -> None:
        together = [_row(number, group=f"g{number // 4}") for number in range(40)]
        for part in [TrialRows(together, []).part(0.3), *TrialRows(together, []).folds(3)]:
            trained = {row.group for row in part.train}
            assert all(sum(row.group == one for row in part.train) == 4 for one in trained)
            assert not trained & {row.group for row in part.val}

    def test_folds_score_each_row_once(self) -> None:
        rows = TrialRows(_rows(10, "coder"), _rows(5, "tester"))
        folds = list(rows.folds(4))
        scored = [row.id for fold in folds for row in fold.val]
        assert sorted(scored) == sorted(row.id for row in [*rows.train, *rows.val])
        assert all(len(fold.train) + len(fold.val) == 15 for fold in folds)


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Run:
    folder = make_run()
    made = Run(folder, load_config(folder / "journeyman.toml"))
    list(run_pipeline(made, "plan", SilentReporter()))
    return made


def test_trials_are_scored_by_one_engine_and_the_held_out_rows_stay_closed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = run.folder("curate") / SEALED
    sealed.rename(tmp_path / "away")  # whoever opens it fails
    rows, arms = rows_of(run), []
    for name, rank in (("one", 2), ("two", 4)):
        lora = run.config.train.lora.model_copy(update={"rank": rank})
        config = run.config.train.model_copy(update={"epochs": 1, "lora": lora})
        made, files = train_trial(run, config, rows, tmp_path / name, SilentReporter())
        assert made.trainable_parameters == plan_of_trial(run, config, rows).trainable_parameters
        arms.append(Arm(tuned(name), rows.val, files))
    assert hash_of_file(arms[0].adapters["all"]) != hash_of_file(arms[1].adapters["all"])
    scores = score_rows(run, [Arm(BASE, rows.val), *arms], tmp_path / "answers", SilentReporter())
    assert list(scores) == [BASE, "tuned@one", "tuned@two"]
    for name, of in scores.items():
        assert [one.id for one in of] == [row.id for row in rows.val]
        assert {one.arm for one in of} == {name}


def test_a_trial_that_was_trained_is_not_trained_again(run: Run, tmp_path: Path) -> None:
    rows = rows_of(run)
    first, files = train_trial(run, run.config.train, rows, tmp_path / "one", SilentReporter())
    before = {name: hash_of_file(file) for name, file in files.items()}
    again, files = train_trial(run, run.config.train, rows, tmp_path / "one", SilentReporter())
    assert again.adapters["all"].train_s == first.adapters["all"].train_s
    assert {name: hash_of_file(file) for name, file in files.items()} == before


def test_a_base_that_no_file_serves_is_refused_with_the_remedy(run: Run, tmp_path: Path) -> None:
    run.__dict__["served"] = []
    with pytest.raises(InputError, match=r"no GGUF file.*evaluate\.quantizations"):
        score_rows(run, [Arm(BASE, [])], tmp_path, SilentReporter())
