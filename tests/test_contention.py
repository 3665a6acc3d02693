"""Other work on the processors is noticed while something is measured."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from journeyman import contention
from journeyman.contention import Contention, ContentionWatch
from journeyman.lints.facts import Facts, Machine
from journeyman.lints.machine import contended
from journeyman.manifests import TrainTime
from journeyman.stages.plan_time_text import _busy


def _write(path: Path, stalled_us: int) -> None:
    path.write_text(
        f"some avg10=1.00 avg60=0.00 avg300=0.00 total={stalled_us}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )


def test_pressure_counts_from_the_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "cores_used_by_others", lambda: 0.0)
    _write(tmp_path / "cpu", 7_000_000)
    clock = iter((100.0, 104.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    watch = ContentionWatch(tmp_path / "cpu")
    _write(tmp_path / "cpu", 9_000_000)
    assert watch.seen().waiting == 0.5


@pytest.mark.parametrize("text", ["", "full total=3\n", "some total=many\n"])
def test_a_system_that_does_not_tell_leaves_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(contention, "cores_used_by_others", lambda: 0.0)
    (tmp_path / "cpu").write_text(text)
    seen = ContentionWatch(tmp_path / "cpu").seen()
    assert seen.waiting is None and seen.others == 0.0
    assert ContentionWatch(tmp_path / "none").seen().waiting is None


def test_the_share_is_that_of_the_worst_and_not_our_own_waiting() -> None:
    assert Contention(0.0, None, None).share == 0.0 and Contention(0.0, 0.1, 0.0).share == 0.0
    assert Contention(0.3, 0.2, 0.0).share == 0.3 and Contention(0.0, 0.9, 0.1).share == pytest.approx(0.7)


def test_a_busy_machine_is_said_with_figures() -> None:
    calm = Machine("the processor", True, 2, waiting=0.1, stolen=0.0, spread=0.02)
    assert not list(contended(Facts(recipe=None, runs={}, roles={}, base=None, machine=calm)))  # type: ignore[arg-type]
    busy = Machine("the processor", True, 2, waiting=0.62, spread=0.2)
    (found,) = contended(Facts(recipe=None, runs={}, roles={}, base=None, machine=busy))  # type: ignore[arg-type]
    assert not found.is_error
    assert "waited for a core 62% of the time, repetitions of the same step differ by 20%" in found.reason.sentence()
    time = TrainTime(source="measured", seconds=1, low=1, high=1, epochs=[1], validation_s=0, others=0.5, waiting=0.1)
    assert "other processes used 50% of the cores)" in _busy(time) and "waited" not in _busy(time)
    assert _busy(time.model_copy(update={"others": 0.0})) == ""
