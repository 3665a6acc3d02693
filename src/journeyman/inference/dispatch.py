"""Puts many questions, several at a time, caches each answer when it arrives, and can stop between two tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Protocol

from journeyman.errors import Interrupted
from journeyman.inference.response_cache import CachedResponse
from journeyman.protocols import Generator, Question, Reporter
from journeyman.records import Prediction

_LOOK_EVERY_S = 0.5


@dataclass
class Asked:
    """The answers in the order of the questions, and the generator's peak memory over all of them."""

    predictions: list[Prediction] = field(default_factory=list)
    peak_memory_bytes: int | None = None


class Answers(Protocol):
    """Where answers are kept as they arrive: the response cache of an evaluation, or another record."""

    def key(self, question: Question, generator: Generator) -> str:
        """Under what the answer to a question is kept."""

    def find(self, key: str, question: Question) -> CachedResponse | None:
        """The answer that is kept; None: the question is to be put."""

    def add(self, key: str, kept: CachedResponse) -> None:
        """Keeps an answer."""


class DispatchProgress:
    """The progress over all questions: complete answers, and the parts of those in progress."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter, self.total = reporter, total
        self._done = 0
        self._parts: dict[int, float] = {}
        self._lock = threading.Lock()
        self._notes: dict[int, str] = {}

    def heard(self, number: int, share: float, note: str) -> None:
        """Called from the threads that read answers."""
        with self._lock:
            self._parts[number], self._notes[number] = min(1.0, share), note

    def finished(self, number: int) -> None:
        with self._lock:
            self._parts.pop(number, None)
            self._notes.pop(number, None)
            self._done += 1

    def show(self) -> None:
        with self._lock:
            done, note = self._done + sum(self._parts.values()), next(iter(self._notes.values()), "")
        self.reporter.advance(min(done, self.total), note)


def dispatch(
    questions: Sequence[Question], generator: Generator, answers: Answers, load: int, progress: DispatchProgress,
    *, replicas: int | None = None,
) -> Asked:  # fmt: skip
    """Puts `load` questions at a time to each of the generator's replicas, or to as many as `replicas` says.

    Questions whose answers are in the response cache are not put again.

    Questions of the same adapter and role are put together: an engine processes only requests of the same adapter at
    once, and the prompts of a role share their beginning.

    Raises:
        Interrupted: a stop was requested. Complete answers are cached.
    """
    questions = [replace(question, load=load) for question in questions]
    keys = [answers.key(question, generator) for question in questions]
    found: dict[int, CachedResponse] = {}
    for number, (key, question) in enumerate(zip(keys, questions, strict=True)):
        if (kept := answers.find(key, question)) is not None:
            found[number] = kept
            progress.finished(number)
    progress.show()
    waiting = sorted(
        (number for number in range(len(questions)) if number not in found),
        key=lambda number: (questions[number].adapter or "", questions[number].role, number),
    )
    over = threading.Event()

    def ask(number: int) -> CachedResponse:
        question = questions[number]

        def heard(tokens: int) -> None:
            if over.is_set():
                raise Interrupted("stopped during an answer")
            progress.heard(number, tokens / question.max_tokens, f"{question.role}, {question.arm}")

        return CachedResponse(generator.generate(question, heard), generator.peak_memory_bytes())

    try:
        for number, kept in _in_threads(ask, waiting, load * (replicas or generator.replicas), over, progress):
            found[number] = kept
            answers.add(keys[number], kept)
            progress.finished(number)
    finally:
        over.set()
    peaks = [kept.peak_memory_bytes for kept in found.values() if kept.peak_memory_bytes is not None]
    return Asked([found[number].answer for number in range(len(questions))], max(peaks, default=None))


def _in_threads(
    ask: Callable[[int], CachedResponse],
    numbers: Sequence[int],
    threads: int,
    over: threading.Event,
    progress: DispatchProgress,
) -> Iterator[tuple[int, CachedResponse]]:
    """Runs `ask` in several threads and yields results as they arrive; raises the first error, or Interrupted.

    The threads are daemons, so one that waits for a slow server delays neither a stop nor the end of the process.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, CachedResponse | BaseException]] = SimpleQueue()
    for number in numbers:
        todo.put(number)

    def work() -> None:
        while not over.is_set():
            try:
                number = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((number, ask(number)))
            except BaseException as error:  # raised again where the results are read
                done.put((number, error))

    for place in range(min(threads, len(numbers))):
        threading.Thread(target=work, name=f"asking {place}", daemon=True).start()
    left = len(numbers)
    while left:
        progress.show()
        if progress.reporter.stop_requested:
            raise Interrupted(f"stopped with {left} answers to go", "Run the same command again to resume")
        try:
            number, result = done.get(timeout=_LOOK_EVERY_S)
        except Empty:
            continue
        if isinstance(result, BaseException):
            if progress.reporter.stop_requested:  # a signal to the whole process group ended the engine too
                continue
            raise result
        left -= 1
        yield number, result
    progress.show()
