"""One function over many batches, results in order: what an executor promises, and the two of this machine.

Local workers are fresh processes (spawned: the parent may hold threads, and forking those can hang). They ignore
Ctrl-C, which is the parent's to handle, and end with the parent even where that is killed.
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
"""Process and batch: what a worker tells before each batch; so small that a pipe never tears it."""
_state: Any = None
_told: Connection | None = None


class Executor(Protocol):
    """Where batches of rows are worked on: in this process, in several of this machine, or elsewhere.

    An executor elsewhere needs no more than this: everything that goes to its workers is picklable, and a worker keeps
    nothing between batches but what `setup` made.
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
        """`function(state, batch)` for each batch, in the order of the batches.

        `batches` is read only a bounded number ahead of the results, in the calling thread. Closing the iterator gives
        up what is under way. What `function` raises goes through.

        Args:
            function: a module-level function.
            setup: picklable; makes each worker's `state` once.
            named: what a user finds a batch by ("log.jsonl, rows 1 to 90"), for the error of a dead worker.
            stopping: whether the user asked to stop: a signal to all processes at once ends the workers as well.

        Raises:
            WorkerDied: a worker died (out of memory, or killed); says which one, how, and at which batch.
            Interrupted: the workers ended, and it was asked to stop.
        """


class InThisProcess:
    """An Executor without workers: for work that is over before a worker has started, and for tests."""

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
    """An Executor with processes of this machine, which live as long as one call.

    Args:
        workers: how many; None: one for each core that this process may use, and at most eight.
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
        except BrokenProcessPool as error:  # all processes have ended: only now have they exit codes
            if stopping():
                raise Interrupted("stopped, the workers too", "Run it again to go on") from error
            raise WorkerDied(
                f"a worker process died: {_death(context.made, at)}", "Free some memory and run it again: it goes on"
            ) from error


LOCAL: Executor = LocalProcesses()
HERE: Executor = InThisProcess()


class _Context(SpawnContext):
    """Spawns, and remembers the processes: the pool tells that one died, not which one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **options)
        self.made.append(process)
        return process


class _Begun:
    """Which batch each worker was at last, as the workers tell it.

    Attributes:
        names: of the batches whose results are not there yet.
    """

    def __init__(self, reader: Connection) -> None:
        self._reader = reader
        self._batch: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def hear(self, done: int = -1) -> None:
        """Reads what was told, so that the pipe never fills; batch `done` needs its name no more."""
        self.names.pop(done, None)
        while self._reader.poll():
            process, batch = _BEGAN.unpack(self._reader.recv_bytes())
            self._batch[process] = batch

    def of(self, process: int) -> str:
        number = self._batch.get(process)
        if number is None:
            return "before its first batch"
        return f"at {self.names.get(number) or f'batch {number + 1}'}"


def _death(made: list[SpawnProcess], at: _Begun) -> str:
    """Which worker died, how, and at what. The pool ends the others with SIGTERM."""
    codes = [(one.pid or 0, one.exitcode or 0) for one in made]
    died = [(pid, code) for pid, code in codes if code not in (0, -signal.SIGTERM)]
    if not died:
        return f"one of {', '.join(str(pid) for pid, _ in codes)}"
    pid, code = died[0]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"process {pid}, {how}, {at.of(pid)}"


def _start(setup: Callable[[], Any], parent: int, told: Connection) -> None:
    global _state, _told
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _state, _told = setup(), told
    # What the setup made stays; looking through it for garbage again and again costs a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(function: Callable[[Any, _B], _R], number: int, batch: _B) -> _R:
    assert _told is not None
    _told.send_bytes(_BEGAN.pack(os.getpid(), number))
    return function(_state, batch)
