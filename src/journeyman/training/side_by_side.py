"""Trains several adapters: one after another, or at the same time if the backend has machines for that.

A job that is trained beside others has a thread of this process for its loop. It reports through a queue, so that the
run's reporter still hears everything in the thread that called, as one progress of all jobs, with their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import TypeVar

from journeyman.errors import Interrupted
from journeyman.events import Advanced, Event, Said, WorkBegan
from journeyman.protocols import Reporter
from journeyman.training.backends import Backend
from journeyman.training.loop import TRAIN, TrainingJob

T = TypeVar("T")
TrainOne = Callable[[Backend, str, Reporter], T]
"""Trains the job of this name."""
_LOOK_EVERY_S = 1.0


def train_each(
    backend: Backend, jobs: Mapping[str, TrainingJob], memory_bytes: float, reporter: Reporter, train: TrainOne[T]
) -> dict[str, T]:
    """What `train` returns for each job, in their order.

    Args:
        jobs: by the name that is shown to the user.
        memory_bytes: that training needs on one device.
        train: called from several threads, but with a backend that no other thread has.

    Raises:
        Interrupted: asked to stop; every job has saved its state.
        Exception: the first that `train` raises. The jobs beside it have been stopped, and have saved their state.
    """
    if len(jobs) > 1:
        sizes = sorted(map(_tokens, jobs.values()), reverse=True)
        made = train_on_parts(lambda voices: backend.parts(sizes, memory_bytes, voices), jobs, reporter, train)
        if made is not None:
            return made
    return {name: train(backend, name, reporter) for name in jobs}


def train_on_parts(
    divide: Callable[[Sequence[Voice]], Sequence[Backend]],
    jobs: Mapping[str, TrainingJob],
    reporter: Reporter,
    train: TrainOne[T],
) -> dict[str, T] | None:
    """As `train_each`, with the backends that `divide` makes; None: they are fewer than two, and nothing was trained.

    Args:
        divide: gets a reporter for each job, the largest job's first, and makes at most as many backends.
    """
    largest_first = sorted(jobs, key=lambda name: -_tokens(jobs[name]))
    heard: SimpleQueue[Heard] = SimpleQueue()
    voices = [Voice(heard, reporter) for _ in jobs]
    parts = divide(voices)
    if len(parts) < 2:
        return None
    reporter.say(f"{len(jobs)} adapters are trained, {len(parts)} at the same time")
    progress = Progress(reporter, {name: _tokens(jobs[name]) for name in jobs})
    made = _side_by_side(parts, largest_first, voices, heard, progress, train)
    return {name: made[name] for name in jobs}


def _tokens(job: TrainingJob) -> int:
    return job.config.epochs * sum(len(row.ids) for row in job.train)


Heard = tuple[str, Event | None]
"""The name of a job and what it reports; None: it has ended."""


class Voice:
    """A Reporter whose events another thread passes on.

    Attributes:
        name: of the job that reports.
        stopped: set: the job shall stop, because another one failed.
    """

    def __init__(self, heard: SimpleQueue[Heard], reporter: Reporter) -> None:
        self._heard, self._reporter = heard, reporter
        self.name, self.stopped = "", Flag()

    @property
    def stop_requested(self) -> bool:
        return self.stopped.is_set() or self._reporter.stop_requested

    def tell(self, event: Event) -> None:
        self._heard.put((self.name, event))

    def begin(self, task: str, total: float, unit: str) -> None:
        self.tell(WorkBegan(task, total, unit))

    def advance(self, done: float, note: str = "") -> None:
        self.tell(Advanced(done, note))

    def say(self, text: str) -> None:
        self.tell(Said(text))

    def end(self) -> None:
        self._heard.put((self.name, None))


class Progress:
    """One progress of several jobs: the tokens of all. What a job says gets its name.

    Args:
        totals: the tokens of each.
    """

    def __init__(self, reporter: Reporter, totals: Mapping[str, int]) -> None:
        self._reporter, self._totals = reporter, totals
        self._done = dict.fromkeys(totals, 0.0)
        self._trains = dict.fromkeys(totals, False)
        reporter.begin(f"train {len(totals)} adapters", sum(totals.values()), "tokens")

    def hear(self, name: str, event: Event | None) -> None:
        match event:
            case None:  # perhaps before its last step
                self._advance(name, self._totals[name], "")
            case Said(text):
                self._reporter.say(f"{name}: {text}")
            case WorkBegan(task):
                self._trains[name] = task == TRAIN
            case Advanced(done, note):
                if self._trains[name]:
                    self._advance(name, done, f"{name}: {note}" if note else "")
            case _:
                self._reporter.tell(event)

    def _advance(self, name: str, done: float, note: str) -> None:
        self._done[name] = done
        self._reporter.advance(sum(self._done.values()), note)


def _side_by_side(
    parts: Sequence[Backend], names: Sequence[str], voices: Sequence[Voice], heard: SimpleQueue[Heard],
    progress: Progress, train: TrainOne[T],
) -> dict[str, T]:  # fmt: skip
    """Trains with each part the job of the same place, which it was made for, and then others, until none is left."""
    left: SimpleQueue[str] = SimpleQueue()
    for name in names[len(parts) :]:
        left.put(name)
    made: dict[str, T] = {}
    errors: list[BaseException] = []

    def stop() -> None:
        for voice in voices:
            voice.stopped.set()

    def work(part: Backend, voice: Voice, name: str) -> None:
        try:
            while True:
                voice.name = name
                made[name] = train(part, name, voice)
                voice.end()
                try:
                    name = left.get_nowait()
                except Empty:
                    return
        except BaseException as error:
            errors.append(error)
            if not isinstance(error, Interrupted):
                voice.say("failed: the adapters beside it are stopped, and keep their checkpoints")
            stop()
        finally:
            part.close()

    def hear(timeout: float) -> bool:
        try:
            progress.hear(*heard.get(timeout=timeout))
            return True
        except Empty:
            return False

    with ThreadPoolExecutor(len(parts), thread_name_prefix="adapter") as pool:
        try:
            working = [pool.submit(work, *one) for one in zip(parts, voices, names, strict=False)]
            while not all(one.done() for one in working):
                hear(_LOOK_EVERY_S)
            while hear(0):
                pass
        finally:
            stop()  # if this thread was interrupted
    for error in sorted(errors, key=lambda one: isinstance(one, Interrupted)):
        raise error
    return made
