"""An Executor whose workers are actors of a Ray cluster.

The parent reads batches and writes results, as with local processes, so nothing but the cluster has to be shared: rows
travel in the calls. A worker that is lost with its node costs the batches that it held, which other workers do again.
"""

from __future__ import annotations

import gc
import os
import pickle
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from journeyman.cluster.head import Head
from journeyman.cluster.nodes import Software, refuse_other_software, software_here
from journeyman.errors import DiskFull, Interrupted, JourneymanError, WorkerDied
from journeyman.foreign import plain

_B = TypeVar("_B")
_R = TypeVar("_R")
_OF_EACH = 2
"""Batches that a worker has at a time: one to work on, one that is on its way."""
_AHEAD = 4
"""Batches for each worker that may be read before the result of the first of them is taken."""
_TRIES = 5
"""A batch whose worker dies is done again. If it dies this often, and more often than with all others, the batch is the
reason; otherwise the cluster loses workers."""
_FAILED_STARTS = 10
"""Rounds of starts in which a worker may die, without one that starts in between."""
_GROW_EVERY_S = 5.0
_LOOK_EVERY_S = 1.0
_NO_WORKER_S = 300.0
_MOST_CAUSE = 300
_NODE = re.compile(r"\bip[=:] ?([0-9A-Fa-f.:]*[0-9A-Fa-f])")


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


@dataclass
class _Raised:
    """What the function raised for a batch: it is raised again when it is that batch's turn, as locally."""

    error: BaseException


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
            result = done.pop(taken)
            if isinstance(result, _Raised):
                raise result.error
            yield result
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
        self._software = software_here()
        self._head = Head()
        self._head.wait()
        self._work = _stored((function, setup))
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(_Worker)
        self._starting: dict[Any, Any] = {}
        self._held: dict[Any, list[_Job]] = {}
        """Worker → its batches, the oldest first."""
        self._queue: deque[_Job] = deque()
        self._running: dict[Any, tuple[_Job, Any]] = {}
        self._grown = self._heard = time.monotonic()
        self._failed = self._deaths = 0
        self._round_failed = False
        self.size = 0
        self._grow()

    def add(self, number: int, batch: Any, name: str) -> None:
        self._queue.append(_Job(number, _stored(batch), name))

    def results(self, stopping: Callable[[], bool]) -> dict[int, Any]:
        """The results that have arrived, by the number of their batches; empty if there are none within a second.

        Raises:
            WorkerDied: a batch's workers died again and again, workers cannot start, or the head is lost.
            UsageError: a node that joined has other software.
            Interrupted: the user asked to stop, and no result arrived.
        """
        self._head.check()
        if time.monotonic() - self._grown > _GROW_EVERY_S and self._head.answered:
            self._grow()
        self._send()
        expected = [*self._running, *self._starting]
        if not expected:  # the last worker was lost a moment ago
            time.sleep(_LOOK_EVERY_S)
        arrived = ray.wait(expected, num_returns=1, timeout=_LOOK_EVERY_S)[0] if expected else []
        results = {}
        for reference in arrived:
            if reference in self._starting:
                self._started(reference)
                continue
            job, worker = self._running.pop(reference)
            try:
                results[job.number] = pickle.loads(ray.get(reference))
            except RayError as error:
                if not isinstance(error, RayTaskError) or isinstance(error.cause, RayError):
                    self._lost(worker, job, error)
                    continue
                results[job.number] = _Raised(error.cause)
            if worker in self._held:  # else an earlier batch of its was lost, and this result had already arrived
                self._held[worker].remove(job)
            self._heard = time.monotonic()
        if not arrived:
            self._check(stopping)
        return results

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        for worker in [*self._held, *self._starting.values()]:
            ray.kill(worker)

    def _grow(self) -> None:
        """Starts a worker for each CPU that has none."""
        self._grown, self._round_failed = time.monotonic(), False
        self.size = self._asked or max(1, int(ray.cluster_resources().get("CPU", 0)))
        for _ in range(self.size - len(self._held) - len(self._starting)):
            worker = self._class.remote()
            self._starting[worker.start.remote(self._work, self._software)] = worker

    def _started(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, JourneymanError):
                raise error.cause from None
            if not self._round_failed:  # all workers of a lost node fail together
                self._failed, self._round_failed = self._failed + 1, True
            if _cannot_start(error) or self._failed >= _FAILED_STARTS:
                raise WorkerDied(
                    f"a worker of the cluster cannot start: {_cause(error)}",
                    "Install journeyman there, in the environment in which Ray runs, or look at: ray status",
                ) from error
            return  # its node is gone; _grow starts another
        self._failed, self._heard = 0, time.monotonic()
        self._held[worker] = []

    def _send(self) -> None:
        """Gives waiting batches to the workers with the fewest."""
        while self._queue and self._held:
            worker = min(self._held, key=lambda one: len(self._held[one]))
            if len(self._held[worker]) >= _OF_EACH:
                return
            job = self._queue.popleft()
            self._held[worker].append(job)
            self._running[worker.call.remote(job.sent)] = job, worker

    def _lost(self, worker: Any, job: _Job, error: RayError) -> None:
        held = self._held.pop(worker, None)
        if held is not None:
            ray.kill(worker)  # if only its result was lost
            self._deaths += 1
            held[0].tries += 1  # the others were waiting behind it
            if held[0].tries >= _TRIES and 2 * held[0].tries > self._deaths:
                place = held[0].name or f"batch {held[0].number + 1}"
                raise WorkerDied(
                    f"a worker of the cluster died {held[0].tries} times at {place}: {_cause(error)}",
                    "Give the nodes more memory, or look at that batch; then run it again: it resumes",
                )
        self._queue.appendleft(job)

    def _check(self, stopping: Callable[[], bool]) -> None:
        if stopping():
            raise Interrupted("stopped, including the cluster's workers", "Run it again to resume")
        if not self._held and time.monotonic() - self._heard > _NO_WORKER_S:
            raise WorkerDied(
                f"no worker of the cluster started within {_NO_WORKER_S:.0f} s",
                "Look at: ray status; then run it again",
            )


def _stored(what: Any) -> Any:
    """A reference to it in the object store of this machine's node."""
    try:
        return ray.put(what)
    except RayError as error:
        raise DiskFull(
            f"the object store of the cluster on this machine takes no more: {_cause(error)}",
            "Free disk space in Ray's temporary folder, or start the node with a larger --object-store-memory",
        ) from error


def _cannot_start(error: RayError) -> bool:
    """Whether the worker itself failed, so that another one would too."""
    return isinstance(error, RayTaskError) or (isinstance(error, RayActorError) and error.actor_init_failed)


def _cause(error: RayError) -> str:
    """One line, with the node if Ray names it."""
    text = str(error)
    lines = [plain(line.strip(), _MOST_CAUSE) for line in text.splitlines() if line.strip()]
    traceback = isinstance(error, RayTaskError) or _cannot_start(error)
    said = lines[-1 if traceback else 0] if lines else type(error).__name__
    node = _NODE.search(text)
    return f"node {node[1]}: {said}" if node else said


class _Worker:
    """In the cluster: the function, and the state that `setup` made of it in this process."""

    def __init__(self) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._state: Any = None
        self._made = False

    def start(self, work: tuple[Callable[[Any, Any], Any], Callable[[], Any]], software: Software) -> None:
        """Answers once the process has started and knows its work.

        Raises:
            UsageError: this node joined after the others were checked, and has other software.
        """
        name = f"{platform.node()} ({ray.util.get_node_ip_address()})"
        refuse_other_software(name, software_here(), software)
        self._function, self._setup = work

    def call(self, batch: Any) -> bytes:
        """The pickled result: unpickled by Ray, arrays would be read-only and would fill the object store."""
        if not self._made:  # here, where an error of the setup reaches the caller as it is
            self._state, self._made = self._setup(), True
            gc.freeze()  # as local workers do: see parallel
            gc.set_threshold(100_000)
        return pickle.dumps(self._function(self._state, batch), protocol=5)
