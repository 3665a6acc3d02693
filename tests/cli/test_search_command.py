"""`journeyman search` on a tiny model, with real training and the engine that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import journeyman
from conftest import log_row
from journeyman.cli.app import app
from journeyman.config import load_config
from journeyman.errors import UsageError
from journeyman.records import Example, Score
from journeyman.search import searching


def _command(*arguments: str, fails: bool = False) -> str:
    ended = CliRunner().invoke(app, list(arguments))
    assert (ended.exit_code != 0) is fails, ended.output
    return ended.stdout


@pytest.fixture
def folder(make_run: Callable[..., Path]) -> Path:
    return make_run(
        rows=[log_row(number) for number in range(60)], toml="[curate]\nval_share = 0.2\n[search]\nmost = 2\n"
    )


def test_a_search_trains_answers_and_says_what_it_found(folder: Path) -> None:
    sealed = folder / "02-dataset" / "sealed" / "test.jsonl"
    _command("curate", "--dir", str(folder))
    sealed.rename(folder.parent / "away")
    shown = _command("search", "--dir", str(folder), "--budget", "10m")
    assert "no better recipe was found" in shown
    found = json.loads(_command("show", "search", "--dir", str(folder), "--json"))
    assert found["search"]["state"] == "finished"
    assert {one["number"] for one in found["trials"] if one["share"] == 1} == {0, 1, 2}
    assert all(len(one["outcomes"]) == found["search"]["validation_rows"] for one in found["trials"])
    assert all(one["tokens"] and one["loss"] and one["adapter_sha256"] for one in found["trials"])
    assert found["recommended"] == {}
    assert "learning_rate = 0.02" in _command("show", "search", "--dir", str(folder))
    assert not sealed.exists()


def test_what_is_recommended_is_applied_on_request_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(row: Example, arm: str) -> Score:
        outcome: Any = "fail" if arm.startswith("tuned@0-") else "pass"
        return Score(id=row.id, role=row.role, arm=arm, check="x", outcome=outcome)

    def made(run: Any, arms: Any, place: Path, reporter: Any) -> dict[str, list[Score]]:
        """Only the default fails."""
        return {arm.name: [scored(row, arm.name) for row in arm.rows] for arm in arms}

    real = searching.search
    monkeypatch.setattr("journeyman.api.searching.search", lambda run, reporter: real(run, reporter, score=made))
    before = (folder / "journeyman.toml").read_text()
    found = journeyman.open(folder).search("10m")
    assert found.recommended
    assert (folder / "journeyman.toml").read_text() == before
    assert "recommended: " in found.told()[0]
    for old, new in (("val_share = 0.2", "val_share = 0.3"), ("max_new_tokens = 8", "max_new_tokens = 4")):
        assert old in before
        (folder / "journeyman.toml").write_text(before.replace(old, new))
        with pytest.raises(UsageError, match="since the search something has changed"):
            found.apply()
    (folder / "journeyman.toml").write_text(before)
    shown = _command("search", "--dir", str(folder), "--apply")
    assert "write" in shown
    train = load_config(folder / "journeyman.toml").train
    for key, value in found.recommended.items():
        assert getattr(train, key.removeprefix("train.")) == value
    with pytest.raises(UsageError, match="not what the search began with"):
        found.apply()


def test_with_settings_of_its_own_apply_searches_with_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from journeyman.cli import search as command

    given: list[list[str]] = []

    def heard(folder: Path, settings: list[str], reporter: Any) -> None:
        given.append(settings)
        raise UsageError("heard")

    monkeypatch.setattr(command, "run_search", heard)
    monkeypatch.setattr(command, "_finished", lambda folder: pytest.fail("an earlier search is not what is asked for"))
    _command("search", "--dir", str(folder), "--set", "train.epochs=2", "--apply", fails=True)
    assert given == [["train.epochs=2"]]


def test_without_a_search_there_is_nothing_to_show(folder: Path) -> None:
    _command("show", "search", "--dir", str(folder), fails=True)
    _command("search", "--dir", str(folder), "--budget", "soon", fails=True)
