"""The replicas of an engine on the nodes of a Ray cluster: watched, leased, and replaced when one is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.cluster.head import Head
from journeyman.cluster.launching import Launcher, Node, OtherEngine, RunningReplica
from journeyman.cluster.nodes import first_line
from journeyman.cluster.replica import Started
from journeyman.errors import EngineError, Interrupted, JourneymanError, UsageError
from journeyman.protocols import EngineSettings, Reporter

_LOOK_EVERY_S = 0.5
_GROW_EVERY_S = 5.0
_NO_REPLICA_S = 300.0
_CLOSES_S = 5.0
_DEATHS = 3
"""A node whose replica dies this often before it is ready gets no other."""


class Replicas:
    """One replica for each node with enough CPUs, also for nodes that join later. A thread watches them.

    Args:
        reporter: hears in the calling thread what the user should know about nodes.

    Attributes:
        size: how many nodes have enough CPUs, as far as is known.

    Raises:
        EngineError: no node has enough CPUs.
        WorkerDied: the head is lost.
    """

    def __init__(self, settings: EngineSettings, reporter: Reporter) -> None:
        self._reporter = reporter
        self._head = Head()
        self._head.wait()
        self._launcher = Launcher(settings)
        self._all: list[RunningReplica] = []
        self._deaths: Counter[str] = Counter()
        self._given_up: dict[str, EngineError] = {}
        self._failed: BaseException | None = None
        self._leased = 0
        self._last: RunningReplica | None = None
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._sending: threading.Thread | None = None
        self._grown, self._seen = 0.0, time.monotonic()
        self.size = len(self._launcher.nodes())
        if not self.size:
            raise EngineError(
                f"no node of the cluster has {self._launcher.cpus} CPUs for the engine",
                "Lower evaluate.threads, or add nodes: ray start --address",
            )
        self._watching = threading.Thread(target=self._watch, name="replicas", daemon=True)
        self._watching.start()

    def first(self) -> Started:
        """Waits for the first replica that is ready.

        Raises:
            EngineError: none starts.
            WorkerDied: the head of the cluster is lost.
            Interrupted: the user asked to stop.
        """
        while True:
            with self._changed:
                self.refuse()
                for replica in self._all:
                    if replica.started is not None:
                        return replica.started
                self._changed.wait(_LOOK_EVERY_S)
            self.tell()
            if self._reporter.stop_requested:
                raise Interrupted("stopped while the engine was loaded", "Run the same command again to resume")

    def tell(self) -> None:
        """Passes on what the user should know."""
        with suppress(Empty):
            while True:
                self._reporter.say(self._lines.get_nowait())

    def refuse(self) -> None:
        """Raises what ends the evaluation: another engine, a lost head, no replica."""
        if self._failed is not None:
            raise self._failed

    @contextmanager
    def leased(self, load: int, waiting: Callable[[], None]) -> Iterator[RunningReplica]:
        """The replica with the fewest questions, which then has one more, but not more than `load`.

        Args:
            waiting: called every half second while all are busy.

        Raises:
            EngineError: there is no replica.
            WorkerDied: the head of the cluster is lost.
        """
        while (replica := self._lease(load)) is None:
            waiting()
        try:
            yield replica
        finally:
            with self._changed:
                replica.asked -= 1
                self._leased -= 1
                self._changed.notify_all()

    def lost(self, replica: RunningReplica) -> None:
        """Ends a replica that died or cannot be reached; its node gets another."""
        with self._changed:
            if replica in self._all:
                self._all.remove(replica)
                self._grown = 0.0
        _end(replica)

    def close(self) -> None:
        """Ends all, and waits until nobody asks the cluster for anything."""
        self._closing.set()
        for thread in (self._watching, self._sending):
            if thread:
                thread.join(_CLOSES_S)
        with self._changed:
            self._failed = self._failed or EngineError("the engine was stopped")
            remaining, self._all = self._all, []
            self._changed.notify_all()
        for replica in remaining:
            _end(replica)
        with self._changed:
            self._changed.wait_for(lambda: self._leased == 0, _CLOSES_S)
        self.tell()

    def _lease(self, load: int) -> RunningReplica | None:
        with self._changed:
            self.refuse()
            free = [one for one in self._all if one.started is not None and one.asked < load]
            if not free:
                self._changed.wait(_LOOK_EVERY_S)
                return None
            # Of equals the same again: rows that measure latency are asked one by one, and belong to one machine.
            replica = min(free, key=lambda one: (one.asked, one is not self._last))
            self._last = replica
            replica.asked += 1
            self._leased += 1
            return replica

    def _fail(self, error: BaseException) -> None:
        """Ends all waiting: the error is raised by those who ask."""
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()

    # --- in the thread that watches ---------------------------------------------------------------

    def _watch(self) -> None:
        try:
            while not self._closing.is_set():
                self._look()
                self._closing.wait(_LOOK_EVERY_S)
        except BaseException as error:
            self._fail(error)

    def _look(self) -> None:
        self._head.check()
        sending = self._sending is not None and self._sending.is_alive()
        if not sending and self._head.answered and time.monotonic() - self._grown > _GROW_EVERY_S:
            self._grow()
        for replica in self._all.copy():
            if replica.started is None:
                self._look_at_start(replica)
            elif replica.asked:
                self._look_at_answers(replica)
        if sending or any(one.alive for one in self._all):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _NO_REPLICA_S:
            raise EngineError(
                f"no node of the cluster has started a replica of the engine for {_NO_REPLICA_S:.0f} s; each needs "
                f"{self._launcher.cpus} CPUs that nobody else uses",
                "Look at: ray status; then run the same command again: it resumes",
            )

    def _grow(self) -> None:
        """Brings a replica to each node that has none."""
        self._grown = time.monotonic()
        taken = {one.node for one in self._all} | self._given_up.keys()
        there = self._launcher.nodes()
        self.size = max(1, len(there))
        nodes = {key: node for key, node in there.items() if key not in taken}
        if nodes:
            self._sending = threading.Thread(target=self._send, args=[nodes], name="sending", daemon=True)
            self._sending.start()
        elif self._given_up and not self._all:
            raise list(self._given_up.values())[-1]

    def _send(self, nodes: Mapping[str, Node]) -> None:
        """In a thread of its own, as files may take minutes."""
        try:
            self._launcher.send(nodes, self._check)
            self._check()
            for node in nodes.values():
                replica = self._launcher.start(node)
                with self._changed:
                    self._all.append(replica)
        except BaseException as error:
            self._fail(error)

    def _check(self) -> None:
        if self._closing.is_set():
            raise Interrupted("stopped while files were sent", "Run the same command again")

    def _look_at_start(self, replica: RunningReplica) -> None:
        replica.alive = replica.alive or _is_there(replica.hello)
        if not _is_there(replica.starting):
            return
        try:
            started, differences = self._launcher.started(replica)
        except (OtherEngine, UsageError, RayTaskError):
            raise
        except JourneymanError as error:
            self._give_up(replica, error.what, error.remedy)
        except RayError as error:
            self._deaths[replica.node] += 1
            if self._deaths[replica.node] < _DEATHS:
                self.lost(replica)
            else:
                why = f"the replica died {_DEATHS} times while it started: {first_line(error)}"
                self._give_up(replica, why, "Look at: ray status")
        else:
            for line in differences:
                self._lines.put(f"node {replica.name} is another machine, which can change answers: {line}")
            with self._changed:
                replica.started = started
                self._changed.notify_all()

    def _give_up(self, replica: RunningReplica, why: str, remedy: str) -> None:
        """No replica for its node any more; the others go on. If there is none, this is the error."""
        error = EngineError(f"node {replica.name} is left out: {why}", remedy)
        self._given_up[replica.node] = error
        self.lost(replica)
        self._lines.put(error.what)

    def _look_at_answers(self, replica: RunningReplica) -> None:
        if replica.looking is not None and _is_there(replica.looking):
            with suppress(RayError):  # those who wait for answers notice
                replica.heard = ray.get(replica.looking)
            replica.looking = None
        if replica.looking is None:
            replica.looking = replica.actor.progress.remote()


def _is_there(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _end(replica: RunningReplica) -> None:
    with suppress(Exception):  # it is gone already
        ray.kill(replica.actor)
