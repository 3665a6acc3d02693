"""Predicted against actual: what is recorded, over interruptions, kills and stages that are made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from conftest import log_row
from journeyman import time_history
from journeyman.cli.time_history import history_lines
from journeyman.events import Advanced, Expected, WorkBegan
from journeyman.lineage import write_manifest
from journeyman.manifests import AdapterManifest, PlanManifest, StageTime, Stamp, TrainedAdapter, TrainTime
from journeyman.supervision.heartbeat import Heartbeat, Progress
from journeyman.time_history import TIMES, Comparison, compare, comparisons, damaged_lines, summary, timed
from journeyman.training import joint_training
from journeyman.training.joint_choice import Together
from test_pipeline import call

MakeRun = Callable[..., Path]


class _Result(BaseModel):
    """Of a stage whose time is that of its attempts."""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plan = PlanManifest.model_construct(
        device=None, device_name=None, serving="llama.cpp", estimated_train_s=100.0, estimated_train_memory_gb=4.0,
        train_time=TrainTime(source="measured", seconds=100, low=90, high=110, epochs=[100], validation_s=5),
        evaluate_time=StageTime(seconds=50.0, low=40.0, high=60.0), export_time=None,
    )  # fmt: skip
    (tmp_path / "03-plan").mkdir()
    stamp = Stamp(stage="plan", version=1, journeyman="0", fingerprint="", inputs={}, created="", files={})
    write_manifest(tmp_path / "03-plan", stamp, _Result())
    monkeypatch.setattr(time_history, "typed_result", lambda root, stage, kind: plan)
    return tmp_path


def _adapter(seconds: float, steps: int = 10) -> AdapterManifest:
    one = TrainedAdapter(
        folder="", steps=steps, total_steps=10, stopped_early=steps < 10, best_step=steps, validations=[],
        train_s=seconds, tokens=1,
    )  # fmt: skip
    return AdapterManifest(
        base_sha256="0", trainable_parameters=1, adapters={"all": one}, precision="float32", peak_memory_gb=3.9
    )


def test_training_is_compared_by_its_time_of_computing(planned: Path) -> None:
    with timed(planned, "train", "a"):
        pass
    compare(planned, "train", "a", _adapter(104.0))
    (one,) = comparisons(planned)
    assert (one.predicted_s, one.actual_s, one.predicted_gb, one.actual_gb) == (100.0, 104.0, 4.0, 3.9)
    assert one.error == pytest.approx(-4 / 104) and one.held
    assert summary([one]) == (
        "predicted times: 1 of 1 within 10 % of the actual time, 1 within 20 %, 1 of 1 in the interval"
    )
    assert any("error -4%, in the interval; peak memory predicted 4.00 GB" in line for line in history_lines([one]))


def test_what_cannot_be_compared_has_no_error(planned: Path) -> None:
    compare(planned, "train", "a", _adapter(50.0, steps=5))
    (one,) = comparisons(planned)
    assert one.stopped_early and one.error is None and one.held is None and summary([one]) == ""
    compare(planned, "export", "a", _Result())
    assert comparisons(planned)[1].predicted_s is None and "predicted not known" in "".join(history_lines([
        comparisons(planned)[1]]))  # fmt: skip


def test_seconds_of_adapters_that_were_trained_at_the_same_time_are_not_compared(planned: Path) -> None:
    compare(planned, "train", "a", _adapter(104.0).model_copy(update={"at_once": 3}))
    (one,) = comparisons(planned)
    assert one.at_once == 3 and one.error is None and summary([one]) == ""
    assert "3 of which were trained at the same time" in "".join(history_lines([one]))


@pytest.mark.parametrize("at_once", [1, 2])
def test_training_records_how_many_adapters_it_trained_at_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(joint_training, "how_together", lambda backend, jobs: Together(at_once, "cores", 999, 1.0, 0))
    folder = make_run(rows=[log_row(i, role="coder" if i % 3 else "tester") for i in range(40)])
    assert call("train", "--dir", folder, "--set", "train.adapters=per-role") == 0
    assert [one.at_once for one in comparisons(folder)] == [at_once]


def test_memory_of_a_gpu_is_compared_without_what_torch_does_not_count(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = time_history.typed_result(planned, "plan", PlanManifest)
    on_gpu = plan.model_copy(update={"device": "cuda", "train_memory_parts": {"runtime": 0.4, "weights": 3.6}})
    monkeypatch.setattr(time_history, "typed_result", lambda root, stage, kind: on_gpu)
    compare(planned, "train", "a", _adapter(104.0))
    assert comparisons(planned)[-1].predicted_gb == pytest.approx(3.6)


def _attempt(root: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, fails: bool = False) -> None:
    clock = iter((0.0, seconds))
    monkeypatch.setattr(time_history.time, "monotonic", lambda: next(clock))
    try:
        with timed(root, "evaluate", "a"):
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def test_the_attempts_of_an_interrupted_evaluation_are_added(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _attempt(planned, monkeypatch, 30.0, fails=True)
    _attempt(planned, monkeypatch, 15.0)
    compare(planned, "evaluate", "a", _Result())
    assert comparisons(planned)[-1].actual_s == 45.0
    _attempt(planned, monkeypatch, 7.0)  # made again, from the beginning
    compare(planned, "evaluate", "a", _Result())
    assert [one.actual_s for one in comparisons(planned)] == [45.0, 7.0]


def test_a_killed_attempt_makes_the_time_unknown(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_history._append(planned, {"event": "began", "stage": "evaluate", "key": "a"})
    _attempt(planned, monkeypatch, 15.0)
    compare(planned, "evaluate", "a", _Result())
    (one,) = comparisons(planned)
    assert one.actual_s is None and one.error is None
    assert any("not known, because an attempt was killed" in line for line in history_lines([one]))


def test_answers_that_were_there_before_are_said(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (planned / "evidence").mkdir()
    (planned / "evidence" / "response-cache.jsonl").write_text("{}\n")
    _attempt(planned, monkeypatch, 5.0)
    compare(planned, "evaluate", "a", _Result())
    (one,) = comparisons(planned)
    assert one.cached and one.error is None and "cached" in "".join(history_lines([one]))


def test_a_line_that_was_cut_short_or_edited_is_no_record(planned: Path) -> None:
    compare(planned, "train", "a", _adapter(104.0))
    whole = (planned / TIMES).read_bytes()
    (planned / TIMES).write_bytes(whole.replace(b"104.0", b"100.0") + whole[:40])
    compare(planned, "train", "b", _adapter(99.0))
    assert [one.actual_s for one in comparisons(planned)] == [99.0]


def test_a_run_records_its_stages_and_keeps_them(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(toml="[decide]\nmin_success = 0.01\nmax_mean_latency_s = 100\n")
    assert call("evaluate", "--dir", folder) == 0
    found = comparisons(folder)
    assert [one.stage for one in found] == ["train", "evaluate"]
    assert all(one.actual_s is not None and one.actual_s > 0 for one in found)
    assert not found[0].measured and found[0].actual_gb is not None
    assert call("evaluate", "--dir", folder, "--set", "train.epochs=1", "--redo") == 0
    assert [one.stage for one in comparisons(folder)] == ["train", "evaluate"] * 2
    capsys.readouterr()
    assert call("show", "plan", "--dir", folder) == 0
    said = capsys.readouterr().out
    assert "\nTIME\n" in said and "PREDICTED AND ACTUAL" in said and said.count("  train, ") == 2
    assert call("verify", folder) == 0


def _progress(done: float, seconds: float, expected: float | None) -> float | None:
    return Progress(
        pid=1, process_started=0, host="", command="", done=done, total=100.0, begun=0.0, begun_done=0.0, moved=seconds,
        expected_s=expected,
    ).left_s  # fmt: skip


def test_what_the_plan_expects_counts_until_a_tenth_is_done(tmp_path: Path) -> None:
    assert _progress(0, 0, None) is None and _progress(0, 0, 200.0) == 200.0
    assert _progress(5, 20, None) == pytest.approx(380.0)
    assert _progress(5, 20, 200.0) == pytest.approx((380.0 + 190.0) / 2)
    assert _progress(10, 40, 200.0) == _progress(10, 40, None) == pytest.approx(360.0)
    heartbeat = Heartbeat(tmp_path, "")
    for event in (Expected("train", 60.0), WorkBegan("validate", 10, "tokens"), Advanced(0.0)):
        heartbeat(event)
    assert heartbeat.progress.left_s is None
    heartbeat(WorkBegan("train", 10, "tokens"))
    assert heartbeat.progress.left_s == 60.0


def test_the_error_history_is_read_as_it_was_written() -> None:
    one = Comparison(
        stage="train", when="2026-01-01", device="x", measured=True, predicted_s=10, low_s=9, high_s=11, actual_s=20
    )
    assert one.error == -0.5 and one.held is False
    assert summary([one]).startswith("predicted times: 0 of 1 within 10 %")


def test_a_line_that_a_kill_cut_short_is_dropped_by_the_next_one(tmp_path: Path) -> None:
    with timed(tmp_path, "export", "key"):
        pass
    path = tmp_path / TIMES
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert damaged_lines(tmp_path) == 1
    with timed(tmp_path, "export", "key"):
        pass
    assert path.read_bytes().startswith(whole) and damaged_lines(tmp_path) == 0
    path.write_bytes(path.read_bytes().replace(b"export", b"exporT", 1))
    assert damaged_lines(tmp_path) == 1
