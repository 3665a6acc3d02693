"""An Executor whose workers are actors of a Ray cluster.

The parent reads batches and writes results, as with local processes, so nothing but the cluster has to be shared: rows
travel in the calls. A worker that is lost with its node costs the batches that it held, which other workers do again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.errors import Interrupted, WorkerDied

_B = TypeVar("_B")
_R = TypeVar("_R")
_OF_EACH = 2
"""Batches that a worker has at a time: one to work on, one that is on its way."""
_AHEAD = 4
"""Batches for each worker that may be read before the result of the first of them is taken."""
_TRIES = 3
"""A batch whose worker dies is done again; if it dies this often, the batch is the reason."""
_GROW_EVERY_S = 5.0
_LOOK_EVERY_S = 1.0
_NO_WORKER_S = 300.0


@dataclass
class _Job:
    """A batch.

    Attributes:
        sent: the batch in the cluster's object store.
    """

    number: int
    sent: Any
    name: str
    tries: int = 0


class RayExecutor:
    """An Executor on the cluster that this process is connected to.

    Args:
        workers: how many; None: one for each CPU of the cluster, also of nodes that join later.
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
        pool = _Pool(function, setup, self._workers)
        try:
            yield from _in_order(pool, batches, named, stopping)
        finally:
            pool.close()


def _in_order(
    pool: _Pool, batches: Iterable[_B], named: Callable[[_B], str], stopping: Callable[[], bool]
) -> Iterator[Any]:
    """The results in the order of the batches, of which a bounded number is read ahead."""
    unread = enumerate(batches)
    done: dict[int, Any] = {}
    taken, read, more = 0, 0, True
    while more or taken < read:
        while more and read - taken < _AHEAD * pool.size:
            one = next(unread, None)
            if one is None:
                more = False
            else:
                pool.add(one[0], one[1], named(one[1]))
                read += 1
        if taken in done:
            yield done.pop(taken)
            taken += 1
        elif taken < read:
            done.update(pool.results(stopping))


class _Pool:
    """Workers of one call, and the batches that they hold.

    Attributes:
        size: how many workers there are or should be.
    """

    def __init__(self, function: Callable[[Any, Any], Any], setup: Callable[[], Any], workers: int | None) -> None:
        self._asked = workers
        self._work = ray.put((function, setup))
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(_Worker)
        self._starting: dict[Any, Any] = {}
        self._ready: dict[Any, int] = {}
        self._queue: deque[_Job] = deque()
        self._running: dict[Any, tuple[_Job, Any]] = {}
        self._grown = self._heard = time.monotonic()
        self.size = 0
        self._grow()

    def add(self, number: int, batch: Any, name: str) -> None:
        self._queue.append(_Job(number, ray.put(batch), name))

    def results(self, stopping: Callable[[], bool]) -> dict[int, Any]:
        """The results that have arrived, by the number of their batches; empty if there are none within a second.

        Raises:
            WorkerDied: a batch's workers died again and again, or there is no worker.
            Interrupted: the user asked to stop, and no result arrived.
        """
        if time.monotonic() - self._grown > _GROW_EVERY_S:
            self._grow()
        self._send()
        arrived, _ = ray.wait([*self._running, *self._starting], num_returns=1, timeout=_LOOK_EVERY_S)
        results = {}
        for reference in arrived:
            self._heard = time.monotonic()
            if reference in self._starting:
                self._started(reference)
                continue
            job, worker = self._running.pop(reference)
            try:
                results[job.number] = ray.get(reference)
                self._ready[worker] = self._ready.get(worker, 1) - 1
            except RayTaskError as error:  # the function raised it
                raise error.cause from None
            except RayError as error:
                self._lost(worker, job, error)
        if not arrived:
            self._check(stopping)
        return results

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        for worker in [*self._ready, *self._starting.values()]:
            ray.kill(worker)

    def _grow(self) -> None:
        """Starts a worker for each CPU that has none."""
        self._grown = time.monotonic()
        self.size = self._asked or max(1, int(ray.cluster_resources().get("CPU", 0)))
        for _ in range(self.size - len(self._ready) - len(self._starting)):
            worker = self._class.remote(self._work)
            self._starting[worker.hello.remote()] = worker

    def _started(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayError:
            return  # its node is gone; _grow starts another
        self._ready[worker] = 0

    def _send(self) -> None:
        """Gives waiting batches to the workers with the fewest."""
        while self._queue and self._ready:
            worker = min(self._ready, key=lambda one: self._ready[one])
            if self._ready[worker] >= _OF_EACH:
                return
            job = self._queue.popleft()
            self._ready[worker] += 1
            self._running[worker.call.remote(job.sent)] = job, worker

    def _lost(self, worker: Any, job: _Job, error: RayError) -> None:
        self._ready.pop(worker, None)
        job.tries += 1
        if job.tries >= _TRIES:
            raise WorkerDied(
                f"a worker of the cluster died {job.tries} times at {job.name or f'batch {job.number + 1}'}: "
                f"{str(error).splitlines()[0]}",
                "Give the nodes more memory, or look at that batch; then run it again: it resumes",
            )
        self._queue.appendleft(job)
        self._grow()

    def _check(self, stopping: Callable[[], bool]) -> None:
        if stopping():
            raise Interrupted("stopped, including the cluster's workers", "Run it again to resume")
        if not self._ready and time.monotonic() - self._heard > _NO_WORKER_S:
            raise WorkerDied(
                f"no worker of the cluster started within {_NO_WORKER_S:.0f} s",
                "Look at: ray status; then run it again",
            )


class _Worker:
    """In the cluster: the function, and the state that `setup` made of it in this process."""

    def __init__(self, work: tuple[Callable[[Any, Any], Any], Callable[[], Any]]) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._function, self._setup = work
        self._state: Any = None
        self._made = False

    def hello(self) -> None:
        """Answers once the process has started."""

    def call(self, batch: Any) -> Any:
        if not self._made:  # here, where an error of the setup reaches the caller as it is
            self._state, self._made = self._setup(), True
        return self._function(self._state, batch)
