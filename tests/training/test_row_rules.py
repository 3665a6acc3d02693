"""[train.rows]: which training rows are used, in training and in the plan's counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import example_of, log_row
from journeyman.config import TrainRowsConfig, load_config
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.records import Message
from journeyman.runs import Run
from journeyman.training.row_rules import trained_rows

ROWS = [
    example_of([Message(role="user", content="x")], "y", id=str(number), ends=number % 2 == 0, weight=number + 1)
    for number in range(4)
]


def test_by_default_all_rows_are_used_as_they_are() -> None:
    assert trained_rows(ROWS, TrainRowsConfig()) == ROWS


def test_cut_answers_are_dropped_and_weights_made_equal() -> None:
    assert [row.id for row in trained_rows(ROWS, TrainRowsConfig(cut_answers="drop"))] == ["0", "2"]
    assert {row.weight for row in trained_rows(ROWS, TrainRowsConfig(weights="equal"))} == {1.0}


def test_plan_and_training_count_the_same_rows_and_the_split_stays(make_run: Callable[..., Path]) -> None:
    cut = {"errors": [], "output": "and then", "finish_reason": "length"}
    rows = [log_row(number) for number in range(40)] + [log_row(100 + number, **cut) for number in range(20)]
    folder = make_run(rows=rows)
    found = {}
    for rule in ("keep", "drop"):
        run = Run(folder, load_config(folder / "journeyman.toml", [f"train.rows.cut_answers='{rule}'"]))
        outcomes = {one.stage: one.action for one in run_pipeline(run, "train", SilentReporter(), redo=True)}
        plan, made = run.result("plan", PlanManifest), run.result("train", AdapterManifest)
        assert plan.total_tokens == made.tokens
        assert plan.total_steps == made.adapters["all"].total_steps
        found[rule] = (plan.total_tokens, outcomes["curate"])
    assert found["drop"][0] < found["keep"][0]
    assert found["drop"][1] == "fresh"
