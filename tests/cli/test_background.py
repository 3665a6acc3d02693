"""Background runs: detached, watched, stopped, and reported as dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journeyman.artifacts import read_json
from journeyman.cli.app import main
from journeyman.locking import is_at_work
from journeyman.supervision.heartbeat import PROGRESS, Progress
from journeyman.supervision.log import LOG

pytestmark = pytest.mark.slow  # whole runs

MakeRun = Callable[..., Path]
ENDLESS = ["--set", "train.epochs=100000", "--set", "train.patience=99999", "--set", "train.checkpoint_s=0.2"]
ENDLESS += ["--set", "plan.measure_s=0"]


def journeyman(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "journeyman", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """Ends processes that a failed test left running."""
    yield
    for place in tmp_path.glob(f"*/{PROGRESS}"):
        if is_at_work(place.parent):
            os.kill(read_json(place)["pid"], signal.SIGKILL)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited for a minute"
        time.sleep(0.05)


def test_detached_training_is_seen_and_stopped_and_goes_on(make_run: MakeRun) -> None:
    folder = make_run()
    started = journeyman("train", "--detach", "--dir", folder, *ENDLESS)
    assert started.returncode == 0 and "running in the background" in started.stdout
    metrics = folder / "04-adapter" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") > 10)
    process = read_json(folder / PROGRESS)["pid"]
    assert os.getsid(process) == process, "a session of its own: the terminal's end does not reach it"
    looks: list[str] = []

    def is_seen_in_training() -> bool:  # training may be in a validation at the moment
        looks.append(journeyman("status", "--dir", folder).stdout)
        return all(words in looks[-1] for words in (f"running: process {process}", "train:", "step", "left"))

    wait_for(is_seen_in_training)

    refused = journeyman("train", "--detach", "--dir", folder, *ENDLESS)
    assert refused.returncode == 2 and "running in this folder" in refused.stderr

    stopped = journeyman("stop", "--dir", folder)
    assert stopped.returncode == 0 and "Resume with: journeyman run --until train" in stopped.stdout
    assert list((folder / "04-adapter" / "checkpoints").glob("step-*"))
    after = journeyman("status", "--dir", folder).stdout
    assert "stopped: stopped before step" in after and "--set train.epochs=100000" in after
    assert "validation loss" in (folder / LOG).read_text()
    assert journeyman("stop", "--dir", folder).returncode == 2

    again = journeyman("train", "--detach", "--dir", folder, *ENDLESS)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: "resumed after step" in (folder / LOG).read_text())
    assert journeyman("stop", "--dir", folder).returncode == 0


def test_a_killed_process_is_reported_as_dead_with_its_last_words(make_run: MakeRun) -> None:
    folder = make_run()
    assert journeyman("train", "--detach", "--dir", folder, *ENDLESS).returncode == 0
    wait_for(lambda: "after step 0 of" in (folder / LOG).read_text())
    os.kill(read_json(folder / PROGRESS)["pid"], signal.SIGKILL)
    wait_for(lambda: "dead: process" in journeyman("status", "--dir", folder).stdout)
    seen = journeyman("status", "--watch", "--dir", folder).stdout
    assert "end of its log" in seen and "validation loss" in seen
    refused = journeyman("stop", "--dir", folder)
    assert refused.returncode == 2 and "no journeyman is running" in refused.stderr


def test_an_error_at_the_start_is_shown_where_it_was_started(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "logs.jsonl").write_text("")
    failed = journeyman("train", "--detach", "--dir", folder)
    assert failed.returncode == 1 and "no usable interaction" in failed.stderr
    assert "Traceback" not in failed.stderr and "at work" not in failed.stdout


def test_a_failure_is_told_by_status(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    monkeypatch.setattr(sys, "argv", ["journeyman", "plan", "--dir", str(folder), "--set", "train.max_memory_gb=0.1"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    assert "does not fit in 0.1 GB" in capsys.readouterr().err
    assert "no go: 1 error, training does not fit" in journeyman("status", "--dir", folder).stdout


def test_what_is_left_is_told_from_the_pace_of_this_run() -> None:
    progress = Progress(
        pid=1, process_started=0, host="h", command="c", begun=100, begun_done=500, done=700, total=1000, moved=120
    )
    assert progress.left_s == pytest.approx(30)
    assert progress.model_copy(update={"done": 500}).left_s is None
