"""Training on a Ray cluster: a Backend whose engines are computed by workers on the nodes.

The training loop runs in this process, the driver, which also has the checkpoints, as locally. The driver is not a
rank: it may be a laptop, and every rank may be lost without losing the loop. Ranks are actors, one for each GPU, or one
for each node's processor. A call of the loop goes to all of them through Ray, which also tells at once if one is gone;
what they compute they add up among themselves, with NCCL or gloo (training.data_parallel).

If a worker is lost, all are ended, and the next engine is made on the nodes that are there then. Adapters that are
trained at the same time have a backend each, with its own workers on a part of the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from journeyman.cluster.head import Head
from journeyman.cluster.nodes import software_here
from journeyman.cluster.remote_engine import RemoteEngine
from journeyman.cluster.shares import Needs, Place, Shares, divided, nodes_now
from journeyman.cluster.shipping import Shipment
from journeyman.cluster.training_group import Group
from journeyman.cluster.training_start import Starting
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted, WorkerDied
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.models.opening import sizes_of
from journeyman.models.sizes import ModelSizes
from journeyman.protocols import Reporter
from journeyman.sizing.memory import MemoryWay
from journeyman.training import backends
from journeyman.training.backends import Backend, Gpus, write_adapter
from journeyman.training.devices import AUTO
from journeyman.training.engine import TrainingEngine, WorkersLost
from journeyman.training.hardware import compute_dtype, gpu_dtype
from journeyman.training.replica import Replica

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
    cards = sum(one.cards for one in nodes_now())
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
    needs = Needs(replica.processor, threads=config.threads or 1)
    if gpus is not None:
        card = min(one.free_bytes for one in gpus.each)
        needs = Needs(False, least=len(gpus.each) if gpus.sharded else 1, card=card)
    return RayBackend(base, Starting(replica, Shipment(base.path), software_here()), needs, reporter)


class RayBackend:
    """A backends.Backend.

    Args:
        starting: starts its workers.
        needs: what one adapter needs.
        shares: what each part of the cluster has; None: this is the only part.
    """

    def __init__(
        self,
        base: Base,
        starting: Starting,
        needs: Needs,
        reporter: Reporter,
        shares: Shares | None = None,
        part: int = 0,
    ) -> None:
        self._base, self._starting, self._needs, self._reporter = base, starting, needs, reporter
        self._shares, self._part = shares or Shares(needs), part
        self._replica = starting.replica
        self._geometry = base.geometry.with_factors(self._replica.factors)
        self._head = Head()
        self._problem, self._told = _NONE, False
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
                    return RemoteEngine(self._group, self._geometry)
            except WorkersLost as error:
                self._problem = error.what
                self._reporter.say(f"{error.what}: the workers are started again")
            if self._shares.waits(self._part):
                until = time.monotonic() + _NO_NODE_S
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

    def parts(self, sizes: Sequence[int], memory_bytes: float, reporters: Sequence[Reporter]) -> Sequence[Backend]:
        needs = replace(self._needs, memory=memory_bytes)
        division = divided(sizes, self._shares.nodes(), needs)
        if division is None:
            return ()
        shares = Shares(needs, division)
        return [
            RayBackend(self._base, self._starting, needs, reporter, shares, part)
            for part, reporter in enumerate(reporters[: len(division.sizes)])
        ]

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        self._shares.leave(self._part)

    def _check(self) -> None:
        self._head.wait()
        if self._reporter.stop_requested:
            raise Interrupted("stopped before the cluster's nodes could train", "Run it again to resume")

    def _connected(self) -> Group | None:
        """Workers on all nodes that this part has, connected and with the base; None: there are not enough.

        Raises:
            WorkersLost: one ended meanwhile.
        """
        have = self._starting.send_base(self._shares.nodes(), self._check, self._reporter)
        places = [one for one in self._shares.take(self._part) if one.node.id in have]
        if not places and self._shares.waits(self._part) and not self._told:
            self._reporter.say("waits until a part of the cluster is free")
            self._told = True
        workers, problem = self._starting.workers(places, self._check, self._reporter)
        self._problem = problem or self._problem
        group = Group(workers, self._head, self._reporter.say)
        try:
            if len(workers) < self._needs.least:
                group.close()
                return None
            group.connect(self._check)
        except BaseException:
            group.close()
            raise
        kind = "processors" if self._replica.processor else "GPUs"
        names = ", ".join(dict.fromkeys(one.node for one in workers))
        self._reporter.say(f"training on {_how_many(places, len(workers))} {kind} of the cluster: {names}")
        return group


def _how_many(places: Sequence[Place], workers: int) -> str:
    """The number of processors or GPUs for the user, such as "2", or "1/2"."""
    others = round(1 / places[0].portion)
    return f"{workers}" if others == 1 else f"{workers}/{others}"
