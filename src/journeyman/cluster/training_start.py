"""Starts the workers that train: actors on given nodes, each with a part of its node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.cluster.nodes import Software, on_node
from journeyman.cluster.shares import Node, Place
from journeyman.cluster.shipping import Shipment
from journeyman.cluster.training_group import Worker
from journeyman.cluster.training_worker import TrainingWorker
from journeyman.errors import JourneymanError
from journeyman.foreign import plain
from journeyman.protocols import Reporter
from journeyman.training.replica import Replica

_START_S = 60.0
"""How long a node may take to start its worker; others may be using it."""
_FINEST = 10_000
"""Ray counts CPUs and GPUs in ten-thousandths."""


@dataclass
class Starting:
    """What all workers are made of, and the nodes that have the base. Its methods may be called by any thread.

    Args:
        software: of the driver.
    """

    replica: Replica
    shipment: Shipment
    software: Software
    _have: set[str] = field(default_factory=set)
    _sending: Lock = field(default_factory=Lock)

    def send_base(self, nodes: Sequence[Node], check: Callable[[], None], reporter: Reporter) -> set[str]:
        """Sends the base to nodes that have not been sent it before; the ids of all that have it.

        Args:
            check: called often; it may raise to stop.
        """
        while not self._sending.acquire(timeout=1.0):
            check()
        try:
            sent = self.shipment.deliver([node.id for node in nodes if node.id not in self._have], check)
            self._have.update(sent)
        finally:
            self._sending.release()
        for node in nodes:
            if sent.get(node.id):
                reporter.say(f"the base was sent to node {node.name}: {sent[node.id] / 1e9:.2f} GB")
        return self._have & {node.id for node in nodes}

    def workers(
        self, places: Sequence[Place], check: Callable[[], None], reporter: Reporter
    ) -> tuple[list[Worker], str]:
        """Workers at some places, without those that do not start because their node is busy or gone.

        Returns:
            Them, and why one did not start; "": all did.

        Raises:
            JourneymanError: a node cannot be used, such as one with other software.
        """
        starting: dict[Any, Worker] = {}
        for place in places:
            actor = self._actor(place)
            starting[actor.hello.remote(self.software)] = Worker(actor, place.node.name)
        workers, problem, until = [], "", time.monotonic() + _START_S
        try:
            while starting and time.monotonic() < until:
                arrived, _ = ray.wait(list(starting), num_returns=1, timeout=1.0)
                for reference in arrived:
                    worker = starting.pop(reference)
                    try:
                        ray.get(reference)
                        workers.append(worker)
                    except RayError as error:
                        if isinstance(error, RayTaskError) and isinstance(error.cause, JourneymanError):
                            raise error.cause from None
                        line = plain((str(error).splitlines() or [""])[0], 200)
                        problem = f"the training worker on node {worker.node} does not start ({line})"
                check()
        except BaseException:
            for worker in [*workers, *starting.values()]:
                ray.kill(worker.actor)
            raise
        for worker in starting.values():
            ray.kill(worker.actor)
            reporter.say(f"node {worker.node} has started no training worker: it is left out")
            problem = problem or f"node {worker.node} starts no training worker within {_START_S:.0f} s"
        return workers, problem

    def _actor(self, place: Place) -> Any:
        node, portion = place.node, int(place.portion * _FINEST) / _FINEST
        uses: dict[str, Any] = {"num_cpus": 0, "num_gpus": portion}
        if self.replica.processor:
            uses = {"num_cpus": node.cpus if place.portion == 1 else portion * node.cpus}
        kind = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"aside": 1},
            scheduling_strategy=on_node(node.id), **uses,
        )(TrainingWorker)  # fmt: skip
        units = 1 if self.replica.processor else node.cards
        return kind.remote(self.replica, self.shipment, max(1, int(node.cpus / units * place.portion)))
