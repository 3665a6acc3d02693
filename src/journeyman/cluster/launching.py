"""Starts replicas of an engine on nodes, with the files that they need, and refuses those that are another engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayTaskError

from journeyman.cluster.nodes import living_nodes, name_of, on_node, software_here
from journeyman.cluster.replica import Replica, Shipped, Started
from journeyman.cluster.shipping import Shipment, deliver_all
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, JourneymanError
from journeyman.inference.engines import engine_identity, engine_sees_gpu, identity_now
from journeyman.inference.llama import hashes_of_files
from journeyman.protocols import EngineSettings

_SPARE_THREADS = 8
"""Of a replica, besides those for answers."""

Node = Mapping[str, Any]
"""A node as ray.nodes describes it."""


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


class Launcher:
    """Starts replicas that are all the same.

    Attributes:
        cpus: how many a node needs.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.cpus = settings.threads or 1
        self._identity = _identity_here(settings)
        self._files = tuple(hashes_of_files(settings).values())
        self._sees_gpus = engine_sees_gpu()
        adapters = {name: Shipment(path) for name, path in settings.adapters.items()}
        self._shipped = Shipped(settings, Shipment(settings.base), adapters, software_here())
        threads = settings.parallel + _SPARE_THREADS
        self._class = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=threads)(Replica)

    def nodes(self) -> dict[str, Node]:
        """Id → node, of all living nodes with enough CPUs."""
        return {one["NodeID"]: one for one in living_nodes() if one["Resources"].get("CPU", 0) >= self.cpus}

    def send(self, nodes: Mapping[str, Node], check: Callable[[], None]) -> None:
        """Brings the files to nodes that lack them; see deliver_all."""
        deliver_all([self._shipped.base, *self._shipped.adapters.values()], nodes, check)

    def start(self, node: Node) -> RunningReplica:
        """Asks for a replica that has the node's processors to itself, as far as Ray knows."""
        resources = node["Resources"]
        actor = self._class.options(
            num_cpus=self._shipped.settings.threads or resources["CPU"],
            num_gpus=resources.get("GPU", 0) if self._sees_gpus else 0,
            scheduling_strategy=on_node(node["NodeID"]),
        ).remote()
        name = name_of(node)
        return RunningReplica(
            node["NodeID"], name, actor, actor.hello.remote(), actor.start.remote(self._shipped, name)
        )

    def started(self, replica: RunningReplica) -> tuple[Started, list[str]]:
        """What a replica whose engine has loaded says about it, and how its machine differs from this one.

        Raises:
            OtherEngine: it is another engine.
            UsageError: its node has other software.
            JourneymanError: its engine did not start.
            RayError: it died.
        """
        try:
            started: Started = ray.get(replica.starting)
        except RayTaskError as error:
            if isinstance(error.cause, JourneymanError):
                raise error.cause from None
            raise
        refuse_other_engine(replica.name, self._identity, self._files, started)
        return started, self._identity.machine_differences(started.identity)


class OtherEngine(EngineError):
    """A node's engine would make an evaluation stale on this machine."""


def refuse_other_engine(node: str, here: EngineIdentity, files: tuple[str, ...], started: Started) -> None:
    """Raises OtherEngine if an engine differs from this machine's as stale evidence does, or has other files."""
    if found := here.differences(started.identity):
        raise OtherEngine(
            f"node {node} has another engine than this machine: {'; '.join(found)}",
            "Install the same packages on all nodes and here",
        )
    if started.files != files:
        raise OtherEngine(f"node {node} has loaded other files than this machine has", "Run the same command again")


def _identity_here(settings: EngineSettings) -> EngineIdentity:
    asked = settings.context, settings.parallel, settings.threads
    return identity_now(*asked, settings.llama_server) if settings.llama_server else engine_identity(*asked)
