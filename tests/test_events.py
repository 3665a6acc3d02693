"""Events: sent in order to every listener, and what log, heartbeat and terminal make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.cli.progress import PlainProgress
from journeyman.config import load_config
from journeyman.errors import Interrupted
from journeyman.events import (
    Advanced,
    Event,
    Events,
    RunEnded,
    Said,
    StageFinished,
    StageStarted,
    Warned,
    WorkBegan,
)
from journeyman.locking import locked
from journeyman.pipeline import run_pipeline
from journeyman.reasons.base import Text
from journeyman.runs import Run
from journeyman.supervision.background import look
from journeyman.supervision.heartbeat import PROGRESS, read_progress
from journeyman.supervision.log import LOG, last_lines
from journeyman.supervision.session import SupervisedEvents

MakeRun = Callable[..., Path]


def test_listeners_hear_in_order_until_they_leave() -> None:
    heard: list[tuple[str, Event]] = []
    events = Events(lambda event: heard.append(("first", event)))
    leave = events.subscribe(lambda event: heard.append(("second", event)))
    events.begin("read", 7, "rows")
    events.advance(2, "slow")
    leave()
    events.say("done")
    both = [("first", WorkBegan("read", 7, "rows")), ("second", WorkBegan("read", 7, "rows"))]
    both += [("first", Advanced(2, "slow")), ("second", Advanced(2, "slow"))]
    assert heard == [*both, ("first", Said("done"))]


def test_a_listener_may_tell_something_itself_and_subscribe_another() -> None:
    heard: list[Event] = []
    events = Events()

    def answering(event: Event) -> None:
        if isinstance(event, WorkBegan):
            events.subscribe(heard.append)
            events.say(f"began {event.task}")

    events.subscribe(answering)
    events.begin("read", 1, "row")
    assert heard == [Said("began read")]


def test_the_pipeline_tells_which_stage_starts_resumes_and_is_fresh(make_run: MakeRun) -> None:
    folder = make_run()
    run = Run(folder, load_config(folder / "journeyman.toml"))
    heard: list[Event] = []
    events = Events(heard.append)
    list(run_pipeline(run, "ingest", events))
    stages = [event for event in heard if isinstance(event, StageStarted | StageFinished)]
    assert stages[0] == StageStarted("ingest", "made") == heard[0]
    assert isinstance(stages[1], StageFinished) and stages[1].action == "made" and stages[1].seconds > 0
    assert any(isinstance(event, WorkBegan) and event.task == "ingest" for event in heard)
    heard.clear()

    def stops(event: Event) -> None:
        events.stop_requested |= isinstance(event, WorkBegan) and event.task == "curate: look"

    events.subscribe(stops)
    with pytest.raises(Interrupted):
        list(run_pipeline(run, "curate", events))
    assert heard[:2] == [StageFinished("ingest", "fresh", 0.0), StageStarted("curate", "made")]
    assert not any(isinstance(event, StageFinished) and event.stage == "curate" for event in heard)
    heard.clear()
    resumed = Events(heard.append)
    list(run_pipeline(run, "curate", resumed))
    assert heard[1] == StageStarted("curate", "resumed")


def test_log_and_heartbeat_hold_what_was_told(tmp_path: Path) -> None:
    events = SupervisedEvents(tmp_path, "journeyman run --dir x")
    with pytest.raises(Interrupted), events.until_the_end(), locked(tmp_path):
        events.tell(StageStarted("train", "made"))
        assert look(tmp_path).state == "running"
        events.begin("train", 100, "tokens")
        events.advance(40, "step 1")
        events.say("half\x1b[31m way")
        events.tell(Warned(Text("few rows")))
        now = events.heartbeat.progress
        assert (now.stage, now.task, now.done, now.note, now.words) == ("train", "train", 40, "step 1", "few rows")
        raise Interrupted("stopped by the test")
    assert [line[20:] for line in last_lines(tmp_path, 9)][1:] == ["   warning: few rows", "stopped by the test"]
    assert "\x1b" not in (tmp_path / LOG).read_text()
    seen = look(tmp_path)
    assert seen.state == "stopped" and not seen.at_work
    assert seen.progress is not None and seen.progress.words == "stopped by the test"
    assert json.loads((tmp_path / PROGRESS).read_text())["command"] == "journeyman run --dir x"


def test_a_run_that_was_refused_the_folder_writes_nothing(tmp_path: Path) -> None:
    events = SupervisedEvents(tmp_path, "again")
    with pytest.raises(ValueError, match="refused"), events.until_the_end():
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == [] and look(tmp_path).state == "nothing"


@pytest.mark.parametrize(("raised", "state", "words"), [
    (None, "ended", "last"), (KeyboardInterrupt(), "stopped", "at once"), (OSError("disk"), "failed", "OSError: disk"),
])  # fmt: skip
def test_how_a_run_ended_is_told_last(tmp_path: Path, raised: BaseException | None, state: str, words: str) -> None:
    heard: list[Event] = []
    events = SupervisedEvents(tmp_path, "again")
    events.subscribe(heard.append)
    try:
        with events.until_the_end():
            events.say("last")
            if raised is not None:
                raise raised
    except BaseException as error:
        assert error is raised
    ended = heard[-1]
    assert isinstance(ended, RunEnded) and ended.state == state
    progress = read_progress(tmp_path)
    assert progress is not None and (progress.state, progress.words) == (state, words)


def test_where_no_line_can_be_drawn_progress_is_said_now_and_then(tmp_path: Path) -> None:
    events = SupervisedEvents(tmp_path, "again")
    said: list[Event] = []
    events.subscribe(PlainProgress(events, 0.0))
    events.subscribe(said.append)
    events.begin("train", 2000, "tokens")
    events.advance(500, "step 1")
    assert Said("train: 500/2,000 tokens step 1") in said
    rare = Events()
    seldom = PlainProgress(events, 3600.0)
    rare.subscribe(seldom)
    before = len(said)
    rare.begin("train", 2000, "tokens")
    rare.advance(600)
    assert len(said) == before
    events.tell(RunEnded("ended"))
