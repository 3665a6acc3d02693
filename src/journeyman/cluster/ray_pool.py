"""Workers of a Ray cluster and the batches that they hold; a lost worker's batches go to others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.cluster.head import Head
from journeyman.cluster.messages import fits_a_call, packed, unpacked
from journeyman.cluster.nodes import software_here
from journeyman.cluster.ray_errors import cannot_start, cause_of, stored
from journeyman.cluster.ray_worker import RowWorker
from journeyman.errors import Interrupted, JourneymanError, WorkerDied

_OF_EACH = 2
"""Batches that a worker has at a time: one to work on, one that is on its way."""
_TRIES = 5
"""A batch whose worker dies is done again. If it dies this often, and more often than with all others, the batch is the
reason; otherwise the cluster loses workers."""
_FAILED_STARTS = 10
"""Rounds of starts in which a worker may die, without one that starts in between."""
_GROW_EVERY_S = 5.0
_LOOK_EVERY_S = 1.0
_NO_WORKER_S = 300.0


@dataclass
class _Job:
    """A batch.

    Attributes:
        sent: the arguments of the call: the packed batch, or a reference to it in the cluster's object store.
    """

    number: int
    sent: Sequence[Any]
    name: str
    tries: int = 0


@dataclass
class Raised:
    """What the function raised for a batch: it is raised again when it is that batch's turn, as locally."""

    error: BaseException


class Pool:
    """Workers, and the batches that they hold.

    A call begins with `begin` and is over once all results were taken. The workers live on and take up the next call's
    work; after a call that ended otherwise, they must be closed.

    Args:
        workers: how many; None: one for each CPU of the cluster, also of nodes that join later.

    Attributes:
        size: how many workers there are or should be.
    """

    def __init__(self, workers: int | None) -> None:
        self._asked = workers
        self._software = software_here()
        self._head = Head()
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(
            RowWorker
        )
        self._starting: dict[Any, Any] = {}
        self._held: dict[Any, list[_Job]] = {}
        """Worker → its batches, the oldest first."""
        self._queue: deque[_Job] = deque()
        self._running: dict[Any, tuple[_Job, Any, list[Any]]] = {}
        """The first result of a call → its batch, its worker and the other results, which arrive with the first."""
        self._grown = self._heard = 0.0
        self._failed = self._deaths = 0
        self._round_failed = False
        self.size = 0

    def begin(self, function: Callable[[Any, Any], Any], setup: Callable[[], Any]) -> None:
        """Gives all workers this work, and starts those that are missing.

        Raises:
            WorkerDied: the head is lost.
        """
        assert not self._queue and not self._running
        self._head.wait()
        self._work = stored((function, setup))
        self._heard = time.monotonic()
        self._failed = self._deaths = 0
        living = [*self._held, *self._starting.values()]
        self._held.clear()
        self._starting.clear()
        for worker in living:
            self._start(worker)
        self._grow()

    def add(self, number: int, batch: Any, name: str) -> None:
        pieces = packed(batch)
        self._queue.append(_Job(number, pieces if fits_a_call(pieces) else [stored(pieces[0])], name))

    def results(self, stopping: Callable[[], bool]) -> dict[int, Any]:
        """The results that have arrived, by the number of their batches; empty if there are none within a second.

        Raises:
            WorkerDied: a batch's workers died again and again, workers cannot start, or the head is lost.
            UsageError: a node that joined has other software.
            Interrupted: the user asked to stop, and no result arrived.
        """
        self._head.check()
        if time.monotonic() - self._grown > _GROW_EVERY_S:
            self._head.check(at_once=True)  # a second old, an answer would let Ray wait a minute for a lost head
            if self._head.answered:
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
            job, worker, others = self._running.pop(reference)
            try:
                results[job.number] = unpacked(ray.get([reference, *others]))
            except RayError as error:
                if not isinstance(error, RayTaskError) or isinstance(error.cause, RayError):
                    self._lost(worker, job, error)
                    continue
                results[job.number] = Raised(error.cause)
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
            self._start(self._class.remote())

    def _start(self, worker: Any) -> None:
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
            if cannot_start(error) or self._failed >= _FAILED_STARTS:
                raise WorkerDied(
                    f"a worker of the cluster cannot start: {cause_of(error)}",
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
            first, *others = worker.call.remote(*job.sent)
            self._running[first] = job, worker, others

    def _lost(self, worker: Any, job: _Job, error: RayError) -> None:
        held = self._held.pop(worker, None)
        if held is not None:
            ray.kill(worker)  # if only its result was lost
            self._deaths += 1
            held[0].tries += 1  # the others were waiting behind it
            if held[0].tries >= _TRIES and 2 * held[0].tries > self._deaths:
                place = held[0].name or f"batch {held[0].number + 1}"
                raise WorkerDied(
                    f"a worker of the cluster died {held[0].tries} times at {place}: {cause_of(error)}",
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
