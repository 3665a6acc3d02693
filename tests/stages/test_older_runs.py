"""Runs of versions that had no train.retention: a finished one stays as it is, others say how to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.config import load_config
from journeyman.errors import StaleArtifact
from journeyman.lineage import write_manifest
from journeyman.older_runs import trained_recipe
from journeyman.pipeline import read_result, run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.runs import Run
from journeyman.stage_states import states_of

MakeRun = Callable[..., Path]
_NONE = ("train.retention.share=0",)


def _run(folder: Path, *overrides: str) -> Run:
    return Run(folder, load_config(folder / "journeyman.toml", overrides))


def _as_older_version(folder: Path, *stages: str) -> None:
    """The manifests as versions without train.retention wrote them, and a config that does not set it."""
    for stage in stages:
        stamp, result = read_result(folder, stage)
        inputs = {key: value for key, value in stamp.inputs.items() if not key.startswith("train.retention.")}
        assert inputs != stamp.inputs, "that nothing is trained beside the rows is recorded"
        write_manifest(Run(folder, load_config(folder / "journeyman.toml")).folder(stage),
                       stamp.model_copy(update={"inputs": inputs}), result)  # fmt: skip
    config = folder / "journeyman.toml"
    config.write_text(config.read_text().replace("[train.retention]\nshare = 0\n", ""))


@pytest.mark.slow
def test_a_finished_training_of_an_older_version_is_not_made_anew(make_run: MakeRun) -> None:
    folder = make_run()
    list(run_pipeline(_run(folder), "train", SilentReporter()))
    _as_older_version(folder, "plan", "train")
    assert _run(folder).config.train.retention.share > 0, "today's default"
    for redo in (False, True):
        actions = {one.stage: one.action for one in run_pipeline(_run(folder), "train", SilentReporter(), redo=redo)}
        assert actions == dict.fromkeys(("ingest", "curate", "plan", "train"), "fresh")
    states = states_of(_run(folder), until="train")
    assert {one.state for one in states.values()} == {"fresh"}
    assert trained_recipe(_run(folder)).retention.share == 0
    assert _flags_in(folder, "train.retention.share=0.1") == "--set train.retention.share=0", "asked for"
    actions = {one.stage: one.action for one in run_pipeline(_run(folder, *_NONE), "train", SilentReporter())}
    assert actions["train"] == "fresh", "as it was trained"


def _flags_in(folder: Path, *overrides: str) -> str:
    """The flags that the refusal names."""
    with pytest.raises(StaleArtifact) as caught:
        list(run_pipeline(_run(folder, *overrides), "plan", SilentReporter()))
    return caught.value.remedy.partition("so add ")[2].partition(" to go on")[0]


def test_a_plan_of_an_older_version_that_is_not_trained_yet_says_how_to_go_on(make_run: MakeRun) -> None:
    folder = make_run()
    list(run_pipeline(_run(folder), "plan", SilentReporter()))
    _as_older_version(folder, "plan")
    assert _flags_in(folder) == "--set train.retention.share=0"
    *_, plan = run_pipeline(_run(folder, *_NONE), "plan", SilentReporter())
    assert plan.action == "fresh"


def test_a_share_of_none_that_is_no_longer_set_is_seen(make_run: MakeRun) -> None:
    folder = make_run()
    list(run_pipeline(_run(folder), "plan", SilentReporter()))
    config = folder / "journeyman.toml"
    config.write_text(config.read_text().replace("[train.retention]\nshare = 0\n", ""))
    assert _flags_in(folder) == "--set train.retention.share=0"
