"""Flags that would have no effect are refused, with what to type instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.cli.running import Invocation
from test_pipeline import call

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--until", "plan", "--override", "because"], "--override: no effect with --until plan"),
        (["run", "--until", "train", "--allow-other-engine"], "--allow-other-engine: no effect with --until train"),
        (["export", "--redo", "--allow-other-engine"], "--allow-other-engine: no effect with --redo"),
        (["export", "--override", " "], "--override: the reason is empty"),
        (["run", "--override", ""], "--override: the reason is empty"),
        (["ingest", "--line", "3"], "--line: no effect without --explain"),
        (["ingest", "--explain", "logs.jsonl", "--redo", "--detach"], "--redo and --detach: no effect with --explain"),
        (["show", "dataset", "--row", "1", "--json"], "--json: no effect with --row"),
        (["show", "dataset", "--split", "val"], "--split: no effect without --row"),
    ],
)
def test_a_flag_without_effect_is_refused_before_any_work(
    arguments: list[str], says: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    assert call(*arguments, "--dir", folder) == 2
    assert says in capsys.readouterr().err
    assert not (folder / "01-interactions").exists()


def test_flags_that_fit_together_still_do(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    assert call("ingest", "--explain", folder / "logs.jsonl", "--line", "2", "--dir", folder) == 0
    assert call("curate", "--dir", folder) == 0
    assert call("show", "dataset", "--row", "1", "--split", "val", "--dir", folder) == 0
    assert call("show", "dataset", "--json", "--dir", folder) == 0


def test_what_goes_on_from_an_interruption_keeps_every_flag() -> None:
    bisected = Invocation(Path("x y"), "evaluate", ["evaluate.threads=1"], bisect=True)
    assert bisected.line() == "journeyman evaluate --bisect --dir 'x y' --set evaluate.threads=1"
    exported = Invocation(Path("x"), "export", (), "a pilot", other_engine=True)
    assert exported.line() == "journeyman run --until export --dir x --override 'a pilot' --allow-other-engine"


def test_a_detached_bisect_is_done_in_the_background(make_run: MakeRun) -> None:
    folder = make_run()
    assert call("evaluate", "--dir", folder, "--set", "evaluate.regression_suite=false") == 0
    assert call("evaluate", "--bisect", "--detach", "--dir", folder, "--set", "evaluate.regression_suite=false") == 0
    log, until = folder / "journeyman.log", time.monotonic() + 120
    while "torch, float32" not in log.read_text():  # the table that is printed at the end
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    assert "05 evaluate  unchanged" in log.read_text() and (folder / "bisect.json").is_file()
