"""What a trial depends on is in its key: if any of it changes, a recorded trial is not used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import log_row
from journeyman.config import load_config
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.runs import Run
from journeyman.search.keys import inputs_of, trial_key
from journeyman.trials.rows import rows_of

GENERAL = "train.retention.share=0.1", "train.retention.prompts='mine.txt'"


@pytest.fixture
def folder(make_run: Callable[..., Path]) -> Path:
    folder = make_run(
        rows=[log_row(number) for number in range(40)],
        toml="[curate]\nval_share = 0.2\n[roles.coder]\nchecks = ['mine.py:f']\n",
    )
    (folder / "mine.py").write_text("def f(answer, row):\n    return True\n")
    (folder / "mine.txt").write_text("What is a lake?\n")
    run = Run(folder, load_config(folder / "journeyman.toml"))
    run.load_checks()
    list(run_pipeline(run, "plan", SilentReporter()))
    return folder


def _keys(folder: Path, *settings: str) -> tuple[str, str]:
    run = Run(folder, load_config(folder / "journeyman.toml", list(settings)))
    return inputs_of(run, 0), trial_key(run, run.config.train, rows_of(run))


def _all_differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] != other[0] and one[1] != other[1]


def test_files_and_settings_from_outside_the_rows_are_in_the_keys(folder: Path) -> None:
    before, general = _keys(folder), _keys(folder, *GENERAL)
    assert _keys(folder) == before
    assert _all_differ(before, general)
    assert _all_differ(before, _keys(folder, "base.chat_template='chatml'"))
    (folder / "mine.txt").write_text("Write a poem on a lake.\n")
    assert _all_differ(general, _keys(folder, *GENERAL))
    assert _keys(folder) == before, "prompts that are not trained change nothing"
    (folder / "mine.py").write_text("def f(answer, row):\n    return False\n")
    assert _all_differ(before, _keys(folder))
