"""`journeyman ask-again`: what it says beforehand, that it needs consent, and training on the answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asked_runs import curated, good
from conftest import REAL_LOG
from fake_http import fake_http
from journeyman.api.asking import AskAgain
from journeyman.artifacts import read_rows
from journeyman.asking.kinds import DEFAULT, kinds_of
from journeyman.errors import UsageError
from journeyman.records import Interaction
from test_pipeline import call

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(tmp_path_factory.mktemp("asked") / "run")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_dry_run_says_rows_tokens_price_and_time_and_writes_nothing(folder: Path, capsys: Captured) -> None:
    assert call("ask-again", "--dir", folder, "--dry-run") == 0
    said = capsys.readouterr().err
    assert "2 rows: the answer is truncated (cut, rule truncated)" in said
    assert "1 not asked: another row that is asked has the same question" in said
    assert "6 to ask: about" in said and "at most 360 of answers (limits 40 to 80)" in said
    assert "price: not known" in said and "time: about" in said
    assert not (folder / "asked-again").exists()
    prices = ["--set", "ask_again.prices.prompt=1000", "--set", "ask_again.prices.answer=1000"]
    assert call("ask-again", "--dir", folder, "--dry-run", *prices) == 0
    assert "price: at most about $0." in capsys.readouterr().err


def test_nothing_is_asked_without_consent(folder: Path, capsys: Captured) -> None:
    with fake_http(good) as http:
        to = ["--endpoint", http.url, "--model", "new"]
        assert call("ask-again", "--dir", folder, *to) == 2
        assert "--yes" in capsys.readouterr().err
        assert not http.asked


def test_the_answers_are_trained_on(folder: Path, capsys: Captured) -> None:
    with fake_http(good) as http:
        to = ["--endpoint", http.url, "--model", "new", "--yes"]
        assert call("ask-again", "--dir", folder, *to) == 0
        assert "6 complete answers in" in capsys.readouterr().out
        assert call("ask-again", "--dir", folder, *to) == 0
        assert len(http.asked) == 6
    assert call("run", "--until", "curate", "--dir", folder, "--from-asked-again", "--redo") == 0
    read = read_rows(folder / "01-interactions/interactions.jsonl.zst", Interaction)
    assert sum("asked_again" in row.extra for row in read) == 6


def test_json_has_the_same_figures(folder: Path, capsys: Captured) -> None:
    assert call("ask-again", "--dir", folder, "--dry-run", "--json", "--only", "cut") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["found"] == {"truncated": 2} and len(told["to_ask"]) == 2 and told["dollars_at_most"] is None


def test_a_teacher_whose_answers_curate_would_drop_is_not_asked(folder: Path, capsys: Captured) -> None:
    with fake_http(good) as http:
        to = ["--endpoint", http.url, "--model", "new", "--yes", "--set", 'curate.teachers=["replicate"]']
        assert call("ask-again", "--dir", folder, *to) == 2
        assert "other_teacher" in capsys.readouterr().err
        assert not http.asked


def test_rows_that_ingest_would_not_read_are_not_asked_for(folder: Path, capsys: Captured) -> None:
    with fake_http(good) as http:
        to = ["--endpoint", http.url, "--model", "new", "--yes", "--set", 'data.format="openai_chat"']
        assert call("ask-again", "--dir", folder, *to) == 2
        assert "data.format = 'openai_chat'" in capsys.readouterr().err
        assert not http.asked


def test_kinds_have_names() -> None:
    assert kinds_of(None) == DEFAULT
    assert kinds_of("cut, no_answer,cut") == ("cut", "no-answer")
    for wrong in ("all", ""):
        with pytest.raises(UsageError, match="--only"):
            kinds_of(wrong)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_it_finds_the_195_cut_answers_of_the_real_log(tmp_path: Path) -> None:
    """131 that are cut and 64 that never leave their reasoning; 4 failures are beside the 298 that call themselves
    successes, and 8 of these ask back."""
    log = [json.loads(line) for line in REAL_LOG.read_text().splitlines()]
    found = AskAgain(curated(tmp_path / "run", log)).look(DEFAULT)
    assert found.chosen.found == {"truncated": 131, "unclosed_reasoning": 64, "asks_back": 8, "failed": 4}
    assert len(found.wanted) + found.chosen.left_out.total() == 207
    assert found.chosen.left_out == {"duplicate": 32, "same_question": 22, "answered": 19}
    assert {one.limit for one in found.wanted if one.kind in ("cut", "no-answer")} == {1000}
