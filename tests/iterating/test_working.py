"""Iterating on a tiny model: trials on the validation rows, the run made anew, its looks counted, and resuming."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import journeyman
from conftest import StopsAfter, log_row
from journeyman.api.iterating import Iterate, iterations
from journeyman.errors import Interrupted, UsageError
from journeyman.inference.sequential_testing import read_looks
from journeyman.iterating import working
from journeyman.iterating.changes import Settings, is_better
from journeyman.iterating.ledger import Looked, Tried
from journeyman.iterating.protocol import Shown
from journeyman.iterating.working import RunWork
from journeyman.manifests import EvaluationManifest
from journeyman.reasons import advice as do
from journeyman.records import Score
from journeyman.runs import SEALED, typed_result
from test_changes import decision
from test_pipeline import call

ADVICE = do.MoreEpochs(1, 1.0, 9, 0.9, 12)


@pytest.fixture
def folder(make_run: Callable[..., Path]) -> Path:
    toml = "[curate]\ntest_share = 0.25\nval_share = 0.25\n[roles.coder]\nchecks = ['exact']\n"
    folder = make_run([log_row(n) for n in range(32)], toml)
    config = folder / "journeyman.toml"
    config.write_text(config.read_text().replace("epochs = 2\n", "epochs = 1 # few\n"))
    return folder


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own verdict is replaced by "iterate" with the advice to train longer, until it has three epochs."""
    real = RunWork.shown

    def shown(self: RunWork, settings: Settings, *, redo: bool) -> Shown:
        found = real(self, settings, redo=redo)
        verdict: Any = "iterate" if found.recipe.epochs < 3 else "deploy"
        return Shown(
            decision(verdict, all=[ADVICE] if verdict == "iterate" else []),
            found.recipe, found.look, found.passed, found.rows,
        )  # fmt: skip

    monkeypatch.setattr(RunWork, "shown", shown)


@pytest.mark.slow
def test_a_run_is_iterated_until_it_deploys_and_each_look_is_counted(
    folder: Path, advised: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[set[str]] = []
    real = working.score_rows

    def scored(run: Any, arms: Any, *more: Any) -> dict[str, list[Score]]:
        opened.append({row.id for arm in arms for row in arm.rows})
        return real(run, arms, *more)

    monkeypatch.setattr(working, "score_rows", scored)
    with pytest.raises(Interrupted):
        Iterate(folder, "1h", 3).run(StopsAfter(40))
    code = call("iterate", "--dir", folder, "--budget", "1h", "--looks", "3")
    said = capsys.readouterr()
    assert code == 0, said
    assert "trying train.epochs = 2 because of all: more epochs than 1" in said.err
    assert "ended: the verdict is deploy" in said.out and "[train]\nepochs = 3" in said.out

    tried = [one for one in iterations(folder) if isinstance(one, Tried)]
    looked = [one for one in iterations(folder) if isinstance(one, Looked)]
    assert [one.change for one in tried] == [{"train.epochs": 2}, {"train.epochs": 3}]
    assert [one.look for one in looked] == [2, 3]
    looks = read_looks(folder / "evidence" / "looks.jsonl").looks
    assert len(looks) == 3
    evaluation = typed_result(folder, "evaluate", EvaluationManifest)
    assert evaluation.look == 3 and evaluation.confidence == pytest.approx(1 - 0.05 / 4)
    sealed = {json.loads(line)["id"] for line in (folder / "02-dataset" / SEALED).read_text().splitlines()}
    assert opened and not sealed & set().union(*opened), "only the evaluation reads the held-out rows"
    assert list((folder / "superseded").glob("05-evaluation-*"))

    assert call("show", "iterations", "--dir", folder) == 0
    shown = capsys.readouterr().out
    assert "train.epochs = 3" in shown and "look 3" in shown
    assert call("iterate", "--dir", folder, "--budget", "1h", "--looks", "3", "--apply", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"train.epochs": 3}
    assert "epochs = 3 # few" in (folder / "journeyman.toml").read_text()
    assert call("run", "--until", "decide", "--dir", folder) in (0, 3), "the run is fresh with the file's settings"
    assert len(read_looks(folder / "evidence" / "looks.jsonl").looks) == 3, "and nothing was looked at again"


@pytest.fixture
def longer_is_better(advised: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.iterating.loop.is_better", lambda compared, aim: True)


def looks_at(folder: Path) -> int:
    return len(read_looks(folder / "evidence" / "looks.jsonl").looks)


@pytest.mark.slow
def test_rows_that_are_logged_meanwhile_stop_it_and_keep_the_held_out_rows(
    folder: Path, longer_is_better: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = RunWork.compare

    def compare(self: RunWork, *given: Any) -> Any:
        found = real(self, *given)
        with (folder / "logs.jsonl").open("a") as file:
            file.write("".join(json.dumps(log_row(n)) + "\n" for n in range(100, 110)))
        return found

    monkeypatch.setattr(RunWork, "compare", compare)
    call("run", "--until", "decide", "--dir", folder)
    sealed = (folder / "02-dataset" / SEALED).read_bytes()
    capsys.readouterr()
    assert call("iterate", "--dir", folder) == 1
    said = capsys.readouterr().err
    assert "01-interactions: made from other inputs" in said, said
    assert (folder / "02-dataset" / SEALED).read_bytes() == sealed and looks_at(folder) == 1
    assert not (folder / "superseded").exists()
    monkeypatch.setattr(RunWork, "compare", real)
    call("run", "--until", "decide", "--redo", "--dir", folder)
    capsys.readouterr()
    assert call("iterate", "--dir", folder, "--looks", "3") == 0, "checkpoints of the old rows are not in the way"


@pytest.mark.slow
def test_what_was_found_is_named_until_it_is_in_the_file(
    folder: Path, longer_is_better: None, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = ["--set", "evaluate.parallel=2"]
    assert call("iterate", "--dir", folder, "--looks", "3", *speed) == 0
    write, export = (line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()[-2:])
    assert shlex.split(write)[2:] == ["--dir", str(folder), "--looks", "0", *speed, "--apply"]
    assert shlex.split(export)[2:] == ["--dir", str(folder), *speed]
    looks = looks_at(folder)
    assert call("iterate", "--dir", folder, "--looks", "0", *speed, "--set", "evaluate.temperature=0.5") == 1
    assert "made with train.epochs = 3, which iterating found" in capsys.readouterr().err
    assert looks_at(folder) == looks, "no look beside the ledger's"
    file = folder / "journeyman.toml"
    file.write_text(file.read_text().replace("[train]\n", "[train]\ncheckpoint_s = 77\n"))
    assert call(*shlex.split(write)[1:]) == 0, "what changes no result begins no new session"
    assert "epochs = 3 # few" in file.read_text()
    capsys.readouterr()
    assert call("run", "--until", "decide", "--dir", folder, *speed) in (0, 3), "and export would find it fresh"
    assert looks_at(folder) == looks


def test_a_real_verdict_about_speed_leaves_the_run_as_it_is_and_says_what_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", "decide.min_success=0.01", "--set", "decide.max_mean_latency_s=0.0001"]
    code = call("iterate", "--dir", folder, "--looks", "1", *more)
    said = capsys.readouterr()
    assert code == 3 and "ended: nothing that the verdict advises is a change of settings" in said.out, said
    assert "left for you: a smaller or more quantized base" in said.out
    given = {"decide.min_success": 0.01, "decide.max_mean_latency_s": 0.0001}
    ended = journeyman.open(folder, settings=given).iterate(looks=1)
    assert ended.reason.code == "iterating_no_change" and ended.settings == {} and ended.left
    assert not (folder / "iterations").exists() and "written into" not in said.out


def test_rows_are_compared_where_both_are_scored_and_roles_that_lose_are_named() -> None:
    def scores(arm: str, outcomes: dict[str, list[str]]) -> list[Score]:
        return [
            Score(id=f"{role}{n}", role=role, arm=arm, outcome=one, check="exact")  # type: ignore[arg-type]
            for role, of in outcomes.items()
            for n, one in enumerate(of)
        ]

    now = scores("now", {"coder": ["fail"] * 9, "tester": ["pass"] * 5 + ["unscored"]})
    changed = scores("changed", {"coder": ["pass"] * 8 + ["unscored"], "tester": ["fail"] * 5 + ["pass"]})
    groups = {one.id: one.id for one in now}
    found = working.compared(now, changed, groups, 1.0, None)
    assert (found.rows, found.wins, found.losses, found.passed, found.before) == (13, 8, 5, 8, 5)
    assert found.worse == ["tester"] and not is_better(found, "success")
    few = scores("changed", {"coder": ["pass"] * 9, "tester": ["pass"] * 2 + ["fail"] * 4})
    assert working.compared(now, few, groups, 1.0, None).worse == [], "three losses may be chance"
    session = {one.id: one.role for one in now}
    found = working.compared(now, changed, session, 1.0, None)
    assert found.losses == 5 and found.worse == [], "five rows of one session are one group"
    lost = scores("changed", {"coder": ["fail"] * 9, "tester": ["unscored"] * 5 + ["pass"]})
    found = working.compared(now, lost, groups, 1.0, None)
    assert (found.rows, found.losses, found.worse) == (14, 5, ["tester"]), "what can no longer be scored is lost"
    spread = [Score(id=str(n), role=str(n), arm="now", outcome="pass", check="exact") for n in range(6)]
    failed = [one.model_copy(update={"outcome": "fail"}) for one in spread]
    found = working.compared(spread, failed, {one.id: one.id for one in spread}, 1.0, None)
    assert found.worse == ["all"] and not is_better(found, "regressions"), "in no role, but over all"


def test_nothing_to_show_is_said(folder: Path) -> None:
    assert call("show", "iterations", "--dir", folder) == 2
    with pytest.raises(UsageError, match="-1 looks"):
        Iterate(folder, looks=-1)
    with pytest.raises(UsageError, match="is no duration"):
        Iterate(folder, budget="2 hours")
