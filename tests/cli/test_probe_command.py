"""`plan --probe` and `show probe`: the page, the record as JSON, and flags that have no effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from test_pipeline import call

MakeRun = Callable[..., Path]


def test_the_page_follows_the_plan_and_the_record_is_shown_again(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    assert call("show", "probe", "--dir", folder) == 2
    assert "Run: journeyman plan --probe" in capsys.readouterr().err
    assert call("plan", "--probe", "--probe-budget", "0.001s", "--dir", folder) == 0
    shown = capsys.readouterr()
    assert shown.out.index("DECISION RULES") < shown.out.index("SHOULD YOU TUNE AT ALL?")
    assert "predicted: not known" in shown.out and "probe/probe.md" in shown.out
    assert "held-out test rows stay closed" in shown.err and "was left out" in shown.err

    assert call("plan", "--probe", "--probe-budget", "0.001s", "--json", "--dir", folder) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((folder / "probe" / "probe.json").read_text())
    assert record["roles"]["all"]["recommendation"]["advice"]

    assert call("show", "probe", "--json", "--dir", folder) == 0
    assert json.loads(capsys.readouterr().out) == record
    with (folder / "journeyman.toml").open("a") as file:
        file.write("[decide]\nmin_success = 0.5\n")
    assert call("show", "probe", "--dir", folder) == 0
    assert "have changed since this probe" in capsys.readouterr().err
    assert call("verify", folder) == 0  # it lies beside what the stages made


@pytest.mark.slow
def test_a_prediction_is_compared_only_with_an_evaluation_of_the_same_settings(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    assert call("plan", "--probe", "--dir", folder) == 0
    assert call("run", "--until", "evaluate", "--dir", folder) == 0
    capsys.readouterr()
    assert call("show", "probe", "--dir", folder) == 0
    assert "found by the evaluation" in capsys.readouterr().out
    with (folder / "journeyman.toml").open("a") as file:
        file.write("temperature = 0.5\n")  # of [evaluate]
    assert call("plan", "--probe", "--dir", folder) == 0
    shown = capsys.readouterr().out
    assert "found by the evaluation" not in shown
    assert "not compared with the run's evaluation, which was made from other inputs: evaluate.temperature" in shown
    assert call("plan", "--redo", "--set", "train.epochs=1", "--dir", folder) == 0
    capsys.readouterr()
    assert call("show", "probe", "--dir", folder) == 0
    assert "from other inputs: 03-plan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "--probe-budget", "5m"], "--probe-budget: no effect without --probe"),
        (["plan", "--json"], "--json: no effect without --probe"),
        (["plan", "--probe", "--detach"], "--detach: no effect with --probe"),
        (["plan", "--probe", "--explain", "few_labels"], "--probe: no effect with --explain"),
        (["plan", "--probe", "--probe-budget", "soon"], "--probe-budget: soon is no duration"),
    ],
)
def test_flags_without_effect_are_refused_before_any_work(
    arguments: list[str], says: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    assert call(*arguments, "--dir", folder) == 2
    assert says in capsys.readouterr().err
    assert not (folder / "01-interactions").exists()
