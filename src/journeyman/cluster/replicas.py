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

from journeyman.cluster.replica import Replica, Started
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, JourneymanError
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


@dataclass(eq=False)
class RunningReplica:
    """A replica, from the moment when it is asked for.

    Attributes:
        node: the id of its node; `name` is for the user.
        hello, starting: references to what answers when its process and its engine have started.
        started: what it said then; None: it is not ready.
        asked: how many questions it has.
        heard: number of a question → pieces of its answer so far.
        looking: reference to the answer that will renew `heard`.
    """

    node: str
    name: str
    actor: Any
    hello: Any
    starting: Any
    started: Started | None = None
    asked: int = 0
    heard: dict[int, int] = field(default_factory=dict)
    looking: Any = None


class Replicas:
    """One replica for each node with enough CPUs, also for nodes that join later. A thread watches them.

    Attributes:
        size: how many nodes have enough CPUs when this is made.

    Raises:
        EngineError: no node has enough CPUs.
    """

    def __init__(self, settings: EngineSettings, told: Callable[[str], None]) -> None:
        self._settings, self._told = settings, told
        here = identity_now if settings.llama_server else engine_identity
        arguments = (settings.llama_server,) if settings.llama_server else ()
        self._identity: EngineIdentity = here(settings.context, settings.parallel, settings.threads, *arguments)
        self._files = tuple(hashes_of_files(settings).values())
        self._class = ray.remote(
            max_restarts=0, max_task_retries=0, max_concurrency=settings.parallel + _SPARE_THREADS
        )(Replica)
        self._all: list[RunningReplica] = []
        self._deaths: Counter[str] = Counter()
        self._given_up: dict[str, EngineError] = {}
        self._failed: BaseException | None = None
        self._leased = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._grown, self._seen = 0.0, time.monotonic()
        self.size = len(self._nodes())
        if not self.size:
            raise EngineError(
                f"no node of the cluster has {self._cpus_needed()} CPUs for the engine",
                "Lower evaluate.threads, or add nodes: ray start --address",
            )
        self._thread = threading.Thread(target=self._watch, name="replicas", daemon=True)
        self._thread.start()

    def first(self) -> Started:
        """Waits for the first replica that is ready.

        Raises:
            EngineError: none starts.
        """
        with self._changed:
            while True:
                self._refuse()
                if ready := self._ready():
                    assert ready[0].started is not None
                    return ready[0].started
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
        """Ends a replica that died or cannot be reached."""
        with self._changed:
            if replica in self._all:
                self._all.remove(replica)
                self._grown = 0.0
        with suppress(Exception):
            ray.kill(replica.actor)

    def close(self) -> None:
        """Ends all, and waits until nobody asks the cluster for anything."""
        self._closing.set()
        self._thread.join()
        with self._changed:
            self._failed = EngineError("the engine was stopped")
            remaining, self._all = self._all, []
            self._changed.notify_all()
        for replica in remaining:
            with suppress(Exception):
                ray.kill(replica.actor)
        with self._changed:
            self._changed.wait_for(lambda: self._leased == 0, _CLOSES_S)

    def _lease(self, load: int) -> RunningReplica | None:
        with self._changed:
            self._refuse()
            free = [one for one in self._ready() if one.asked < load]
            if not free:
                self._changed.wait(_LOOK_EVERY_S)
                return None
            replica = min(free, key=lambda one: one.asked)
            replica.asked += 1
            self._leased += 1
            return replica

    def _ready(self) -> list[RunningReplica]:
        return [one for one in self._all if one.started is not None]

    def _refuse(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _watch(self) -> None:
        try:
            while not self._closing.is_set():
                self._look()
                self._closing.wait(_LOOK_EVERY_S)
        except BaseException as error:  # raised again by those who ask
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    def _look(self) -> None:
        if time.monotonic() - self._grown > _GROW_EVERY_S:
            self._grow()
        for replica in self._all.copy():
            if replica.started is None:
                self._look_at_start(replica)
            elif replica.asked:
                self._look_at_answers(replica)
        if any(one.started or one.hello is None for one in self._all):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _NO_REPLICA_S:
            raise EngineError(
                f"no node of the cluster has started a replica of the engine for {_NO_REPLICA_S:.0f} s; each needs "
                f"{self._cpus_needed()} CPUs that nobody else uses",
                "Look at: ray status; then run the same command again: it resumes",
            )

    def _grow(self) -> None:
        """Starts a replica on each node that has none."""
        self._grown = time.monotonic()
        nodes = self._nodes()
        with self._changed:
            taken = {one.node for one in self._all}
        for node, info in nodes.items():
            if node in taken or node in self._given_up:
                continue
            actor = self._class.options(
                num_cpus=self._settings.threads or info["Resources"]["CPU"],
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote()
            name = f"{info['NodeManagerHostname']} ({info['NodeManagerAddress']})"
            replica = RunningReplica(node, name, actor, actor.hello.remote(), actor.start.remote(self._settings))
            with self._changed:
                self._all.append(replica)
        if self._given_up and not self._all:
            raise list(self._given_up.values())[-1]

    def _look_at_start(self, replica: RunningReplica) -> None:
        if replica.hello is not None and _is_there(replica.hello):
            replica.hello = None
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
                return
            why = (str(error).splitlines() or [type(error).__name__])[0]
            self._give_up(replica, f"the replica died {_DEATHS} times while it started: {why}", "Look at: ray status")
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
        if replica.looking is None:
            replica.looking = replica.actor.progress.remote()
        elif _is_there(replica.looking):
            with suppress(RayError):  # those who wait for answers notice
                replica.heard = ray.get(replica.looking)
            replica.looking = replica.actor.progress.remote()

    def _nodes(self) -> dict[str, Mapping[str, Any]]:
        """Id → description of each living node with enough CPUs."""
        needed = self._cpus_needed()
        alive = (one for one in ray.nodes() if one["Alive"])
        return {one["NodeID"]: one for one in alive if one["Resources"].get("CPU", 0) >= needed}

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


def _is_there(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])
