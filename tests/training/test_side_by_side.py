"""Several adapters at the same time: results, progress, stopping and errors, with backends that need no machines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from journeyman.errors import Interrupted, TrainingDiverged
from journeyman.protocols import Reporter, SilentReporter
from journeyman.training.backends import Backend
from journeyman.training.engine import TrainingEngine
from journeyman.training.loop import TrainingJob
from journeyman.training.side_by_side import train_each
from training_ranks import config, rows


class _Backend:
    """Has so many parts.

    Attributes:
        closed: how many of its parts were closed.
        asked: the sizes that it was asked to divide among.
    """

    machines = 1

    def __init__(self, parts: int) -> None:
        self._parts, self.closed = parts, 0
        self.made: list[_Part] = []
        self.asked: list[int] = []

    def parts(self, sizes: Sequence[int], memory_bytes: float, reporters: Sequence[Reporter]) -> Sequence[Backend]:
        assert len(sizes) == len(reporters)
        self.asked = list(sizes)
        self.made = [_Part(self) for _ in range(self._parts)]
        return self.made

    def engine(self) -> TrainingEngine:
        raise NotImplementedError

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None: ...

    def peak_memory_bytes(self) -> None: ...

    def close(self) -> None: ...


class _Part(_Backend):
    def __init__(self, whole: _Backend) -> None:
        super().__init__(0)
        self._whole = whole

    def close(self) -> None:
        self._whole.closed += 1


class _Reporter(SilentReporter):
    """Attributes: said, and what it heard of the progress; it may be called by one thread only."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.tasks: list[tuple[str, float]] = []
        self.done: list[float] = []
        self.notes: list[str] = []
        self._thread, self._on_advance = threading.get_ident(), on_advance

    def begin(self, task: str, total: float, unit: str) -> None:
        self.tasks.append((task, total))

    def advance(self, done: float, note: str = "") -> None:
        assert threading.get_ident() == self._thread
        self.done.append(done)
        self.notes.append(note)
        self._on_advance()

    def say(self, text: str) -> None:
        assert threading.get_ident() == self._thread
        self.said.append(text)


def _jobs(**counts: int) -> dict[str, TrainingJob]:
    return {name: TrainingJob(rows(count), [], config(), "f", Path(name)) for name, count in counts.items()}


def _tokens(job: TrainingJob) -> int:
    return job.config.epochs * sum(len(row.ids) for row in job.train)


class _Training:
    """What a job does: it waits until `together` of them are at work, and reports as a Trainer does."""

    def __init__(self, jobs: Mapping[str, TrainingJob], together: int) -> None:
        self._jobs, self._meeting = jobs, threading.Barrier(together, timeout=20)
        self.saved: list[str] = []
        self.fails = ""
        self.met = threading.Event()

    def __call__(self, backend: Backend, name: str, reporter: Reporter) -> Any:
        total = _tokens(self._jobs[name])
        self._meeting.wait()
        self.met.set()
        reporter.begin("train", total, "tokens")
        reporter.advance(total / 2, "step 1/2")
        reporter.begin("validate", 7, "tokens")
        reporter.advance(7, "step 1/2")
        if self.fails == name:
            raise TrainingDiverged("the loss of this one exploded")
        while self.fails or (self._jobs[name].val and not reporter.stop_requested):
            if reporter.stop_requested:
                self.saved.append(name)
                raise Interrupted("stopped")
        reporter.say("nearly done")
        reporter.begin("train", total, "tokens")
        reporter.advance(total)
        return name.upper(), backend


def test_all_are_trained_at_the_same_time_and_the_results_keep_their_order() -> None:
    jobs, backend, reporter = _jobs(b=3, a=9, c=5), _Backend(3), _Reporter()
    made = train_each(backend, jobs, 1e9, reporter, _Training(jobs, together=3))
    assert [(name, one) for name, (one, _) in made.items()] == [("b", "B"), ("a", "A"), ("c", "C")]
    assert len({id(part) for _, part in made.values()}) == 3
    assert backend.closed == 3
    assert backend.asked == sorted(map(_tokens, jobs.values()), reverse=True)
    assert [made[name][1] for name in ("a", "c", "b")] == backend.made, "each has the part that was made for its size"


def test_the_progress_is_that_of_all_and_says_which_adapter() -> None:
    jobs, reporter = _jobs(b=3, a=9), _Reporter()
    train_each(_Backend(2), jobs, 1e9, reporter, _Training(jobs, together=2))
    total = sum(map(_tokens, jobs.values()))
    assert reporter.tasks == [("train 2 adapters", total)]
    assert reporter.done == sorted(reporter.done)
    assert reporter.done[-1] == total
    assert {"a: step 1/2", "b: step 1/2"} <= set(reporter.notes)
    assert reporter.said[0] == "2 adapters are trained, 2 at the same time"
    assert sorted(reporter.said[1:]) == ["a: nearly done", "b: nearly done"]


def test_with_fewer_parts_than_adapters_the_largest_come_first() -> None:
    jobs, order = _jobs(a=3, b=9, c=5), list[str]()
    largest = threading.Barrier(2, timeout=20)

    def train(backend: Backend, name: str, reporter: Reporter) -> int:
        order.append(name)
        if name != "a":
            largest.wait()
        return len(order)

    assert list(train_each(_Backend(2), jobs, 1e9, _Reporter(), train)) == ["a", "b", "c"]
    assert sorted(order[:2]) == ["b", "c"]
    assert order[2:] == ["a"]


def test_an_error_stops_the_others_which_save_and_is_raised() -> None:
    jobs, backend, reporter = _jobs(a=3, b=3, c=3), _Backend(3), _Reporter()
    training = _Training(jobs, together=3)
    training.fails = "b"
    with pytest.raises(TrainingDiverged, match="exploded"):
        train_each(backend, jobs, 1e9, reporter, training)
    assert sorted(training.saved) == ["a", "c"]
    assert backend.closed == 3
    assert "b: failed: the adapters beside it are stopped, and keep their checkpoints" in reporter.said


def test_stopping_stops_all_and_begins_no_other() -> None:
    jobs, backend = _jobs(a=3, b=3, c=3), _Backend(2)
    reporter = _Reporter(lambda: setattr(reporter, "stop_requested", True))
    saved: list[str] = []

    def train(backend: Backend, name: str, voice: Reporter) -> None:
        voice.begin("train", 1, "tokens")
        voice.advance(0.5)
        while not voice.stop_requested:
            pass
        saved.append(name)
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        train_each(backend, jobs, 1e9, reporter, train)
    assert len(saved) == 2
    assert backend.closed == 2


def test_an_interrupt_of_this_thread_stops_all() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    jobs, backend, saved = _jobs(a=3, b=3), _Backend(2), list[str]()

    def train(backend: Backend, name: str, voice: Reporter) -> None:
        voice.begin("train", 1, "tokens")
        voice.advance(0.5)
        while not voice.stop_requested:
            pass
        saved.append(name)
        raise Interrupted("stopped")

    with pytest.raises(KeyboardInterrupt):
        train_each(backend, jobs, 1e9, _Reporter(interrupt), train)
    assert sorted(saved) == ["a", "b"]
    assert backend.closed == 2


@pytest.mark.parametrize("parts", [0, 1])
def test_without_parts_they_are_trained_one_after_another_by_the_whole(parts: int) -> None:
    jobs, backend, reporter, order = _jobs(a=3, b=9), _Backend(parts), _Reporter(), list[str]()

    def train(given: Backend, name: str, voice: Reporter) -> str:
        assert given is backend
        assert voice is reporter
        order.append(name)
        return name

    assert train_each(backend, jobs, 1e9, reporter, train) == {"a": "a", "b": "b"}
    assert order == ["a", "b"]
    assert reporter.said == []
