"""Training on a Ray cluster: a Backend whose engines are computed by workers on the nodes.

The training loop runs in this process, the driver, which also has the checkpoints, as locally. The driver is not a
rank: it may be a laptop, and every rank may be lost without losing the loop. Ranks are actors, one for each GPU, or one
for each node's processor. A call of the loop goes to all of them through Ray, which also tells at once if one is gone;
what they compute they add up among themselves, with NCCL or gloo (training.data_parallel).

If a worker is lost, all are ended, and the next engine is made on the nodes that are there then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from safetensors.torch import load
from torch import Tensor

from journeyman.cluster.head import Head
from journeyman.cluster.nodes import living_nodes, name_of, on_node, software_here
from journeyman.cluster.shipping import Shipment
from journeyman.cluster.training_group import Group, Worker
from journeyman.cluster.training_worker import TrainingWorker
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted, JourneymanError, WorkerDied
from journeyman.foreign import plain
from journeyman.models.base import Base
from journeyman.models.geometry import Factors, Geometry
from journeyman.models.opening import sizes_of
from journeyman.models.sizes import ModelSizes
from journeyman.protocols import Reporter
from journeyman.sizing.memory import MemoryWay
from journeyman.training import backends
from journeyman.training.backends import Backend, Gpus, write_adapter
from journeyman.training.batches import Pack
from journeyman.training.calls import Call
from journeyman.training.devices import AUTO
from journeyman.training.engine import Heard, KeyedPack, LossSum, TrainingEngine, WorkersLost
from journeyman.training.hardware import compute_dtype, gpu_dtype
from journeyman.training.replica import Replica

_START_S = 60.0
"""How long a node may take to start its worker; others may be using it."""
_NO_NODE_S = 300.0
_NONE = "no node of the cluster can train"


def backend_of(
    base: Base, config: TrainConfig, memory: MemoryWay, factors: Factors | None, gpus: Gpus | None, reporter: Reporter
) -> Backend:
    """What trains a base on the cluster; see backends.backend_of.

    Args:
        reporter: hears which nodes train, and says when to stop waiting for them.

    Raises:
        InputError: the plan is for another kind of device than the cluster's nodes have.
    """
    if isinstance(sizes_of(base), ModelSizes):
        reporter.say("transformers trains this base: on this machine alone")
        return backends.backend_of(base, config, memory, factors, gpus)
    cards = sum(one.cards for one in _nodes())
    if gpus is None and cards and config.device == AUTO:
        raise InputError(
            f"the plan is to train on the processor, because this machine has no GPU, and the cluster has {cards}",
            "Run journeyman plan --redo and train on a node that has one, or set train.device = 'cpu'",
        )
    if gpus is not None and not cards:
        raise InputError(
            "the plan is to train on a GPU, and no node of the cluster has one",
            "Train without --ray, or plan for processors: journeyman plan --redo --set train.device=cpu",
        )
    dtype = compute_dtype(config.precision) if gpus is None else gpu_dtype(config.precision)
    replica = Replica(
        base=base.path, config=config, dtype="float32" if dtype == torch.float32 else "bfloat16", factors=factors,
        recompute=memory != "keep", blocks=memory == "stream", processor=gpus is None,
        shard=gpus is not None and gpus.sharded,
    )  # fmt: skip
    return RayBackend(base, replica, reporter, least=len(gpus.each) if gpus is not None and gpus.sharded else 1)


@dataclass(frozen=True)
class _Node:
    """A node that is alive."""

    id: str
    name: str
    cpus: int
    cards: int


class RayBackend:
    """A backends.Backend.

    Args:
        replica: what each worker makes.
        least: so many workers are needed.
    """

    def __init__(self, base: Base, replica: Replica, reporter: Reporter, least: int = 1) -> None:
        self._base, self._replica, self._reporter, self._least = base, replica, reporter, least
        self._geometry = base.geometry.with_factors(replica.factors)
        self._shipment, self._software, self._head = Shipment(base.path), software_here(), Head()
        self._problem = _NONE
        self._group: Group | None = None

    @property
    def machines(self) -> int:
        """The packs of a group are kept on each card if cards share the base, so that none gets more of them."""
        return 1 if self._group is None or self._replica.shard else len(self._group.workers)

    def engine(self) -> TrainingEngine:
        until, self._problem = time.monotonic() + _NO_NODE_S, _NONE
        while True:
            self._check()
            try:
                if self._group is None or self._group.is_closed:
                    self._group = self._connected()
                if self._group is not None:
                    return _RayEngine(self._group, self._geometry)
            except WorkersLost as error:
                self._problem = error.what
                self._reporter.say(f"{error.what}: the workers are started again")
            if time.monotonic() > until:
                raise WorkerDied(
                    f"{self._problem}, for {_NO_NODE_S / 60:.0f} minutes",
                    "Look at: ray status; then run it again: it goes on from the last checkpoint",
                )
            time.sleep(1)

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        write_adapter(adapter, self._geometry, self._base, self._replica.config, folder)

    def peak_memory_bytes(self) -> int | None:
        try:
            return None if self._group is None or self._group.is_closed else max(self._group.all("peak"))
        except WorkersLost:
            return None

    def close(self) -> None:
        if self._group is not None:
            self._group.close()

    def _check(self) -> None:
        self._head.wait()
        if self._reporter.stop_requested:
            raise Interrupted("stopped before the cluster's nodes could train", "Run it again to resume")

    def _connected(self) -> Group | None:
        """Workers on all nodes that have them, connected and with the base; None: there are not enough.

        Raises:
            WorkersLost: one ended meanwhile.
        """
        nodes = [one for one in _nodes() if (one.cpus if self._replica.processor else one.cards)]
        sent = self._shipment.deliver([one.id for one in nodes], self._check)
        for node in nodes:
            if sent.get(node.id):
                self._reporter.say(f"the base was sent to node {node.name}: {sent[node.id] / 1e9:.2f} GB")
        workers = self._started([one for one in nodes if one.id in sent])
        group = Group(workers, self._head)
        try:
            if len(workers) < self._least:
                group.close()
                return None
            group.connect(self._check)
        except BaseException:
            group.close()
            raise
        kind = "processors" if self._replica.processor else "GPUs"
        names = ", ".join(dict.fromkeys(one.node for one in workers))
        self._reporter.say(f"training on {len(workers)} {kind} of the cluster: {names}")
        return group

    def _started(self, nodes: Sequence[_Node]) -> list[Worker]:
        """Workers on some nodes, without those that do not start because their node is busy or gone."""
        starting: dict[Any, Worker] = {}
        for node in nodes:
            for _ in range(1 if self._replica.processor else node.cards):
                actor = self._worker(node)
                starting[actor.hello.remote(self._software)] = Worker(actor, node.name)
        workers, until = [], time.monotonic() + _START_S
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
                    self._problem = f"the training worker on node {worker.node} does not start ({line})"
            self._check()
        for worker in starting.values():
            ray.kill(worker.actor)
            self._reporter.say(f"node {worker.node} has started no training worker: it is left out")
        return workers

    def _worker(self, node: _Node) -> Any:
        uses: dict[str, Any] = {"num_cpus": node.cpus} if self._replica.processor else {"num_cpus": 0, "num_gpus": 1}
        kind = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"aside": 1},
            scheduling_strategy=on_node(node.id), **uses,
        )(TrainingWorker)  # fmt: skip
        threads = max(1, node.cpus // max(1, 1 if self._replica.processor else node.cards))
        return kind.remote(self._replica, self._shipment, threads)


class _RayEngine:
    """An engine.TrainingEngine: the one that the training loop has."""

    def __init__(self, group: Group, geometry: Geometry) -> None:
        self._group, self._geometry = group, geometry
        self._identity: str = group.all("engine")[0]

    @property
    def sizes(self) -> Geometry:
        return self._geometry

    def identity(self) -> str:
        return self._identity

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        heard(0.0)  # not at the end: once the workers have the gradients, the call must count
        made: LossSum = self._group.call(Call("accumulate", packs, divisor), heard)
        return made

    def clip(self, most: float) -> float:
        norm: float = self._group.call(Call("clip", number=most))
        return norm

    def step(self, learning_rate: float) -> None:
        self._group.call(Call("step", number=learning_rate))

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        heard(0.0)
        made: LossSum = self._group.call(Call("evaluate", [KeyedPack(one, "") for one in packs]), heard)
        return made

    def adapter(self) -> dict[str, Tensor]:
        return load(self._group.call(Call("adapter")))

    def state(self) -> dict[str, Tensor]:
        return load(self._group.call(Call("state")))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._group.call(Call("load_state", tensors=tensors))

    def memory_bytes(self) -> int:
        return self._group.memory

    def close(self) -> None:
        """The workers stay for the next engine."""


def _nodes() -> list[_Node]:
    found = []
    for one in living_nodes():
        has: Callable[[str, float], float] = one["Resources"].get
        found.append(_Node(one["NodeID"], name_of(one), int(has("CPU", 0)), int(has("GPU", 0))))
    return sorted(found, key=lambda one: one.id)
