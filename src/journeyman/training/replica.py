"""The engines of several devices, all made from the same few settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator

from journeyman.config import TrainConfig
from journeyman.models.geometry import Factors
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.models.gpu.sharded import ShardedLayers
from journeyman.models.opening import open_base
from journeyman.models.weights import load_decoder
from journeyman.training.cpu_replica import CpuReplica
from journeyman.training.data_parallel import DataParallelEngine, ReplicaEngine
from journeyman.training.gpu import GpuEngine
from journeyman.training.mirror import Leader, MakeEngine
from journeyman.training.processes import WORKER, start_workers
from journeyman.training.ranks import LIMIT, Ranks

Say = Callable[[str], None]


class Replica(BaseModel):
    """What each process needs to know to make its engine.

    Attributes:
        base: file or folder.
        dtype: in which the frozen matrices are stored and products are computed.
        factors: the rotary divisors that the base will be served with, if it has two sets.
        recompute: recompute each layer in the backward pass instead of keeping its activations.
        blocks: leave the frozen matrices in GGUF's blocks.
        processor: compute as CpuEngine does. Without it, a device "cpu" computes as a GPU would, which is for tests.
        shard: each device has a part of each frozen matrix, and gets the rest when it is needed (models.gpu.sharded),
            for bases that do not fit on one device; layers are then always recomputed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path
    config: TrainConfig
    dtype: Literal["float32", "bfloat16"]
    factors: Factors | None = None
    recompute: bool = False
    blocks: bool = False
    processor: bool = False
    shard: bool = False

    @model_validator(mode="after")
    def _shards_plain_matrices(self) -> Replica:
        if self.shard and (self.blocks or self.processor):
            raise ValueError("only matrices in the compute type on GPUs can be sharded")
        return self

    def load(self, ranks: Ranks, say: Say = lambda _: None) -> MakeEngine:
        """Loads the base on the device of this rank; the result makes engines that share it.

        Args:
            say: called with a line of text when an engine goes on with less memory.
        """
        base, dtype = open_base(self.base), {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.dtype]
        if self.processor:
            frozen = load_decoder(base, dtype, stream=self.blocks, factors=self.factors)
            return partial(self._one_of, ranks, lambda _: CpuReplica(frozen, self.config, recompute=self.recompute))
        keep = partial(ShardedLayers, number=ranks.rank, count=ranks.count, gather=ranks.gather_bytes)
        decoder = load_on_gpu(
            base, dtype, ranks.device,
            blocks=self.blocks, deterministic=self.config.deterministic, factors=self.factors,
            keep=keep if self.shard else list,
        )  # fmt: skip

        def on_gpu(notes: list[str]) -> GpuEngine:
            return GpuEngine(decoder, self.config, recompute=self.recompute or self.shard, say=notes.append)

        return partial(self._one_of, ranks, on_gpu, say)

    def _one_of(
        self, ranks: Ranks, make: Callable[[list[str]], ReplicaEngine], say: Say = lambda _: None
    ) -> DataParallelEngine:
        notes: list[str] = []
        whole_packs = self.config.lora.dropout > 0
        return DataParallelEngine(
            make(notes), ranks, whole_packs=whole_packs, lockstep=self.shard, notes=notes, say=say
        )


def load_replica(job: str, ranks: Ranks) -> MakeEngine:
    """What a worker makes of the job that rank 0 assigns."""
    return Replica.model_validate_json(job).load(ranks)


def on_several_devices(
    replica: Replica,
    devices: Sequence[str],
    say: Say = lambda _: None,
    *,
    command: Sequence[str] = WORKER,
    limit: timedelta = LIMIT,
) -> Leader:
    """Starts a process for each device but the first, which this process has, and loads the base on all of them.

    If `torchrun` started this process as rank 0, the others are there already. Close what is returned; a process can
    have one of them at a time.

    Args:
        devices: such as ["cuda:0", "cuda:1"].
        say: called with a line of text when a device goes on with less memory.
        command: the program of the other processes.
        limit: how long a process waits for the others in the middle of a computation.

    Raises:
        WorkerDied: a process did not start, or could not load the base.
        UsageError: `torchrun` has started another number of processes.
    """
    ranks, watch = start_workers(devices, replica.model_dump_json(), command, limit)
    try:
        return Leader(ranks, replica.load(ranks, say), watch)
    except BaseException:
        watch.stop(wait=False)
        raise
