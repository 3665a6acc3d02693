"""A base with two sets of rotary factors: evaluate.context decides with which of them a run trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import log_row, write_tiny_gguf
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.reasons.planning import LongFactors
from journeyman.runs import typed_result
from scaled import longrope
from test_pipeline import call


@pytest.fixture
def run(tmp_path: Path) -> Path:
    base = write_tiny_gguf(tmp_path / "longrope.gguf", extend=longrope)
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(20)))
    (tmp_path / "journeyman.toml").write_text(
        f'[base]\nmodel = "{base}"\n[data]\nsources = ["*.jsonl"]\n[train]\nepochs = 1\n[evaluate]\ncontext = 200\n'
    )
    return tmp_path


def _warnings(run: Path) -> list[LongFactors]:
    reasons = [warning.reason() for warning in typed_result(run, "plan", PlanManifest).warnings]
    return [one for one in reasons if isinstance(one, LongFactors)]


def test_a_context_that_changes_the_factors_trains_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--dir", run) == 0
    assert not _warnings(run)
    trained = typed_result(run, "train", AdapterManifest)
    capsys.readouterr()
    assert call("train", "--dir", run, "--set", "evaluate.context=256") == 0
    assert "04 train     unchanged" in capsys.readouterr().err
    assert call("train", "--dir", run, "--set", "evaluate.context=257") == 1
    assert "rotary factors for evaluate.context: short, now long" in capsys.readouterr().err
    assert call("train", "--dir", run, "--set", "evaluate.context=257", "--redo") == 0
    (warning,) = _warnings(run)
    assert (warning.context, warning.original) == (257, 256)
    assert "set it to 256 or less" in warning.sentence()
    again = typed_result(run, "train", AdapterManifest)
    assert again.adapters["all"].train_loss != trained.adapters["all"].train_loss, "other angles"


@pytest.mark.slow
def test_the_bundle_says_with_which_contexts_it_may_be_served(run: Path) -> None:
    assert call("export", "--dir", run, "--set", "evaluate.max_new_tokens=8", "--override", "a test") == 3
    card = (run / "07-bundle" / "README.md").read_text()
    assert "must give a request a context of at most 256 tokens" in card
