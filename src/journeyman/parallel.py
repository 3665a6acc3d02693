"""Executors run one function over many batches and return the results in order.

Local workers are new processes (spawned, because forking a parent with threads can hang). They ignore Ctrl-C, which
the parent handles, and end when the parent does, even if it is killed.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Protocol, TypeVar

from journeyman.errors import Interrupted, WorkerDied

_B = TypeVar("_B")
_R = TypeVar("_R")
_IN_FLIGHT = 3
_MOST_WORKERS = 8
_BEGAN = struct.Struct("qq")
"""Process id and batch number, which a worker sends before each batch; small enough for atomic writes to a pipe."""
_state: Any = None
_sender: Connection | None = None


class Executor(Protocol):
    """Where batches of rows are processed: in this process, in several local ones, or elsewhere.

    This is all that an executor on other machines needs: everything sent to workers is picklable, and workers keep
    nothing between batches except what `setup` made.
    """

    def map_batches(
        self,
        function: Callable[[Any, _B], _R],
        setup: Callable[[], Any],
        batches: Iterable[_B],
        *,
        named: Callable[[_B], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[_R]:
        """Yields `function(state, batch)` for each batch, in the order of the batches.

        `batches` is read in the calling thread, a bounded number ahead of the results. Closing the iterator abandons
        pending batches. Exceptions of `function` propagate.

        Args:
            function: a module-level function.
            setup: picklable; makes each worker's `state` once.
            named: describes a batch to users ("log.jsonl, rows 1 to 90"), for the error about a dead worker.
            stopping: whether the user asked to stop; a signal to the whole process group ends the workers too.

        Raises:
            WorkerDied: a worker died (out of memory, or killed); says which one, how, and at which batch.
            Interrupted: the workers ended after the user asked to stop.
        """


class InThisProcess:
    """An Executor without workers, for tests and for work that takes less time than starting a worker."""

    def map_batches(
        self,
        function: Callable[[Any, _B], _R],
        setup: Callable[[], Any],
        batches: Iterable[_B],
        *,
        named: Callable[[_B], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[_R]:
        state = setup()
        for batch in batches:
            yield function(state, batch)


class LocalProcesses:
    """An Executor with local processes, which live for one call.

    Args:
        workers: how many; None: one for each core that this process may use, at most eight.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def map_batches(
        self,
        function: Callable[[Any, _B], _R],
        setup: Callable[[], Any],
        batches: Iterable[_B],
        *,
        named: Callable[[_B], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[_R]:
        workers = self._workers or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        if workers < 2:
            yield from InThisProcess().map_batches(function, setup, batches)
            return
        context = _Context()
        reader, writer = context.Pipe(duplex=False)
        at = _Begun(reader)
        waiting: deque[Future[_R]] = deque()
        try:
            with (
                reader,
                writer,
                ProcessPoolExecutor(workers, context, _start, (setup, os.getpid(), writer)) as pool,
            ):
                try:
                    for number, batch in enumerate(batches):
                        at.names[number] = named(batch)
                        waiting.append(pool.submit(_call, function, number, batch))
                        if len(waiting) >= workers * _IN_FLIGHT:
                            yield waiting.popleft().result()
                            at.hear(number - len(waiting))
                    while waiting:
                        yield waiting.popleft().result()
                except BrokenProcessPool:
                    at.hear()
                    raise
                finally:
                    for future in waiting:
                        future.cancel()
        except BrokenProcessPool as error:  # exit codes exist only now that all processes have ended
            if stopping():
                raise Interrupted("stopped, including the workers", "Run it again to resume") from error
            raise WorkerDied(
                f"a worker process died: {_death(context.made, at)}", "Free some memory and run it again: it resumes"
            ) from error


LOCAL: Executor = LocalProcesses()
HERE: Executor = InThisProcess()


class _Context(SpawnContext):
    """Remembers the spawned processes, because the pool reports that one died, but not which one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **options)
        self.made.append(process)
        return process


class _Begun:
    """The batch that each worker started last, as the workers report it.

    Attributes:
        names: descriptions of the pending batches.
    """

    def __init__(self, reader: Connection) -> None:
        self._reader = reader
        self._batch: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def hear(self, done: int = -1) -> None:
        """Reads the reports, so that the pipe never fills up, and forgets the name of batch `done`."""
        self.names.pop(done, None)
        while self._reader.poll():
            process, batch = _BEGAN.unpack(self._reader.recv_bytes())
            self._batch[process] = batch

    def of(self, process: int) -> str:
        number = self._batch.get(process)
        if number is None:
            return "before its first batch"
        if number not in self.names:  # its result has been taken
            return "before its next batch"
        return f"at {self.names[number] or f'batch {number + 1}'}"


def _death(made: list[SpawnProcess], at: _Begun) -> str:
    """Describes which worker died, how, and at which batch. The pool ends the others with SIGTERM."""
    codes = [(one.pid or 0, one.exitcode or 0) for one in made]
    died = [(pid, code) for pid, code in codes if code not in (0, -signal.SIGTERM)]
    if not died:
        return f"one of {', '.join(str(pid) for pid, _ in codes)}"
    pid, code = died[0]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"process {pid}, {how}, {at.of(pid)}"


def _start(setup: Callable[[], Any], parent: int, sender: Connection) -> None:
    global _state, _sender
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _state, _sender = setup(), sender
    # What the setup made stays alive; scanning it for garbage repeatedly would take a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(function: Callable[[Any, _B], _R], number: int, batch: _B) -> _R:
    assert _sender is not None
    _sender.send_bytes(_BEGAN.pack(os.getpid(), number))
    return function(_state, batch)


class Worker:
    """One local process that works on one item after the other, and is started again if it died.

    Args:
        setup: picklable; makes the process's state once.
    """

    def __init__(self, setup: Callable[[], Any]) -> None:
        self._setup = setup
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, _Context(), _start_worker, (self._setup, os.getpid()))

    def call(self, function: Callable[[Any, _B], _R], item: _B) -> _R:
        """`function(state, item)`; a module-level function, whose exceptions propagate.

        Raises:
            WorkerDied: the process died; the next call has another one.
        """
        try:
            return self._pool.submit(_applied, function, item).result()
        except BrokenProcessPool as error:
            self._pool.shutdown(wait=False)
            self._pool = self._started()
            raise WorkerDied("a worker process died", "Free some memory") from error

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def _start_worker(setup: Callable[[], Any], parent: int) -> None:
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _state = setup()


def _applied(function: Callable[[Any, _B], _R], item: _B) -> _R:
    return function(_state, item)
