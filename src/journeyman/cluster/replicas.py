"""The replicas of an engine on the nodes of a Ray cluster: started, watched, leased, and replaced when one is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from journeyman.cluster.replica import Replica, Shipped, Started
from journeyman.cluster.shipping import Shipment
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, Interrupted, JourneymanError
from journeyman.inference.engines import engine_identity, identity_now
from journeyman.inference.llama import hashes_of_files
from journeyman.protocols import EngineSettings

_LOOK_EVERY_S = 0.5
_GROW_EVERY_S = 5.0
_NO_REPLICA_S = 300.0
_CLOSES_S = 5.0
_DEATHS = 3
"""A node whose replica dies this often before it is ready gets no other."""
_SPARE_THREADS = 8
"""Of a replica, besides those for answers."""


@dataclass(eq=False)
class RunningReplica:
    """A replica, from the moment when it is asked for.

    Attributes:
        node: the id of its node; `name` is for the user.
        hello, starting: references to what answers when its process and its engine have started.
        alive: whether its process has started.
        started: what it said about its engine; None: it is not ready.
        asked: how many questions it has.
        heard: number of a question → pieces of its answer so far.
        looking: reference to the answer that will renew `heard`.
    """

    node: str
    name: str
    actor: Any
    hello: Any
    starting: Any
    alive: bool = False
    started: Started | None = None
    asked: int = 0
    heard: dict[int, int] = field(default_factory=dict)
    looking: Any = None


class Replicas:
    """One replica for each node with enough CPUs, also for nodes that join later. A thread watches them.

    Args:
        told: hears what the user should know about nodes.

    Attributes:
        size: how many nodes have enough CPUs when this is made.

    Raises:
        EngineError: no node has enough CPUs.
    """

    def __init__(self, settings: EngineSettings, told: Callable[[str], None]) -> None:
        self._settings, self._told = settings, told
        self._identity = _identity_here(settings)
        self._files = tuple(hashes_of_files(settings).values())
        adapters = {name: Shipment(path) for name, path in settings.adapters.items()}
        self._shipped = Shipped(settings, Shipment(settings.base), adapters)
        threads = settings.parallel + _SPARE_THREADS
        self._class = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=threads)(Replica)
        self._all: list[RunningReplica] = []
        self._deaths: Counter[str] = Counter()
        self._given_up: dict[str, EngineError] = {}
        self._failed: BaseException | None = None
        self._leased = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._sending: threading.Thread | None = None
        self._grown, self._seen = 0.0, time.monotonic()
        self.size = len(self._nodes())
        if not self.size:
            raise EngineError(
                f"no node of the cluster has {self._cpus_needed} CPUs for the engine",
                "Lower evaluate.threads, or add nodes: ray start --address",
            )
        self._watching = threading.Thread(target=self._watch, name="replicas", daemon=True)
        self._watching.start()

    def first(self) -> Started:
        """Waits for the first replica that is ready.

        Raises:
            EngineError: none starts.
        """
        with self._changed:
            while True:
                self._refuse()
                for replica in self._all:
                    if replica.started is not None:
                        return replica.started
                self._changed.wait(_LOOK_EVERY_S)

    @contextmanager
    def leased(self, load: int, waiting: Callable[[], None]) -> Iterator[RunningReplica]:
        """The replica with the fewest questions, which then has one more, but not more than `load`.

        Args:
            waiting: called every half second while all are busy.

        Raises:
            EngineError: there is no replica.
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
        self._watching.join(_CLOSES_S)
        if self._sending:
            self._sending.join(_CLOSES_S)
        with self._changed:
            self._failed = self._failed or EngineError("the engine was stopped")
            remaining, self._all = self._all, []
            self._changed.notify_all()
        for replica in remaining:
            _end(replica)
        with self._changed:
            self._changed.wait_for(lambda: self._leased == 0, _CLOSES_S)

    def _lease(self, load: int) -> RunningReplica | None:
        with self._changed:
            self._refuse()
            free = [one for one in self._all if one.started is not None and one.asked < load]
            if not free:
                self._changed.wait(_LOOK_EVERY_S)
                return None
            replica = min(free, key=lambda one: one.asked)
            replica.asked += 1
            self._leased += 1
            return replica

    def _refuse(self) -> None:
        if self._failed is not None:
            raise self._failed

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
        sending = self._sending is not None and self._sending.is_alive()
        if not sending and time.monotonic() - self._grown > _GROW_EVERY_S:
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
                f"{self._cpus_needed} CPUs that nobody else uses",
                "Look at: ray status; then run the same command again: it resumes",
            )

    def _grow(self) -> None:
        """Sends the files to each node that has no replica, and starts one there."""
        self._grown = time.monotonic()
        taken = {one.node for one in self._all}
        nodes = {key: info for key, info in self._nodes().items() if key not in taken and key not in self._given_up}
        if nodes:
            self._sending = threading.Thread(target=self._send, args=[nodes], name="sending", daemon=True)
            self._sending.start()
        elif self._given_up and not self._all:
            raise list(self._given_up.values())[-1]

    def _look_at_start(self, replica: RunningReplica) -> None:
        replica.alive = replica.alive or _is_there(replica.hello)
        if not _is_there(replica.starting):
            return
        try:
            started: Started = ray.get(replica.starting)
        except RayTaskError as error:
            if not isinstance(error.cause, JourneymanError):
                raise error.cause from None
            self._give_up(replica, error.cause.what, error.cause.remedy)
        except RayError as error:
            self._deaths[replica.node] += 1
            if self._deaths[replica.node] < _DEATHS:
                self.lost(replica)
            else:
                why = f"the replica died {_DEATHS} times while it started: {first_line(error)}"
                self._give_up(replica, why, "Look at: ray status")
        else:
            refuse_other_engine(replica.name, self._identity, self._files, started)
            for line in self._identity.machine_differences(started.identity):
                self._told(f"node {replica.name} is another machine, which can change answers: {line}")
            with self._changed:
                replica.started = started
                self._changed.notify_all()

    def _give_up(self, replica: RunningReplica, why: str, remedy: str) -> None:
        """No replica for its node any more; the others go on."""
        error = EngineError(f"node {replica.name}: {why}", remedy)
        self._given_up[replica.node] = error
        self.lost(replica)
        self._told(f"{error.what}. The evaluation goes on without this node")

    def _look_at_answers(self, replica: RunningReplica) -> None:
        if replica.looking is not None and _is_there(replica.looking):
            with suppress(RayError):  # those who wait for answers notice
                replica.heard = ray.get(replica.looking)
            replica.looking = None
        if replica.looking is None:
            replica.looking = replica.actor.progress.remote()

    # --- in the thread that sends files -----------------------------------------------------------

    def _send(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        try:
            for shipment in (self._shipped.base, *self._shipped.adapters.values()):
                shipment.deliver(nodes, self._check)
            self._check()
            for node, info in nodes.items():
                actor = self._class.options(
                    num_cpus=self._settings.threads or info["Resources"]["CPU"],
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote()
                name = f"{info['NodeManagerHostname']} ({info['NodeManagerAddress']})"
                made = RunningReplica(node, name, actor, actor.hello.remote(), actor.start.remote(self._shipped))
                with self._changed:
                    self._all.append(made)
        except BaseException as error:
            self._fail(error)

    def _check(self) -> None:
        if self._closing.is_set():
            raise Interrupted("stopped while files were sent", "Run the same command again")

    def _nodes(self) -> dict[str, Mapping[str, Any]]:
        """Id → description of each living node with enough CPUs."""
        alive = (one for one in ray.nodes() if one["Alive"])
        return {one["NodeID"]: one for one in alive if one["Resources"].get("CPU", 0) >= self._cpus_needed}

    @property
    def _cpus_needed(self) -> int:
        return self._settings.threads or 1


def refuse_other_engine(node: str, here: EngineIdentity, files: tuple[str, ...], started: Started) -> None:
    """Raises an EngineError if a node's engine would make an evaluation stale on this machine, or has other files."""
    if found := here.differences(started.identity):
        raise EngineError(
            f"node {node} has another engine than this machine: {'; '.join(found)}",
            "Install the same packages on all nodes and here",
        )
    if started.files != files:
        raise EngineError(f"node {node} has loaded other files than this machine has", "Run the same command again")


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _identity_here(settings: EngineSettings) -> EngineIdentity:
    asked = settings.context, settings.parallel, settings.threads
    return identity_now(*asked, settings.llama_server) if settings.llama_server else engine_identity(*asked)


def _is_there(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _end(replica: RunningReplica) -> None:
    with suppress(Exception):  # it is gone already
        ray.kill(replica.actor)
