"""Trains several adapters on one frozen base in memory, at the same time where that is faster.

At the same time only on this machine's processor: in one batch (training.joint), or each on some of the cores. On a GPU
they take turns: passes of a small model are replayed as graphs, and a large one fills the device with the rows of one
adapter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self, TypeVar

import psutil
import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.models.geometry import Geometry
from journeyman.protocols import Reporter
from journeyman.sizing.memory import TrainingSize
from journeyman.sizing.parameters import lora_parameters
from journeyman.training.backends import Backend, DecoderBackend, OneMachine
from journeyman.training.batches import steps_per_epoch
from journeyman.training.engine import TrainingEngine
from journeyman.training.hardware import free_memory_bytes, matrix_gflops
from journeyman.training.joint import Group, JointEngine
from journeyman.training.joint_choice import JobSize, Machine, Together, choose_together
from journeyman.training.loop import TrainingJob
from journeyman.training.side_by_side import TrainOne, train_each, train_on_parts

T = TypeVar("T")
_FREE_SHARE = 0.9


def train_jointly(
    backend: Backend, jobs: Mapping[str, TrainingJob], memory_bytes: float, reporter: Reporter, train: TrainOne[T]
) -> dict[str, T]:
    """What `train` returns for each job, in their order; the backend that it gets has the job's own config.

    An adapter gets the same as if it were trained alone, up to rounding. If `train` raises, the other jobs are stopped
    and save their state; where one that diverges shall end alone, `train` catches TrainingDiverged.

    Args:
        backend: of any of the jobs; all have the same precision.
        jobs: by the name that is shown to the user. Their configs may differ.
        memory_bytes: that training one of them needs on one device.
        train: is called from several threads, and should close its engine before it does something long.

    Raises:
        Interrupted: asked to stop; every job has saved its state.
        InputError: the backend cannot train the recipe of one of the jobs.
        Exception: the first that `train` raises.
    """
    if not isinstance(backend, OneMachine):
        if any(job.config != next(iter(jobs.values())).config for job in jobs.values()):
            raise InputError("machines of a cluster train adapters of one recipe only", "Train without --ray")
        return train_each(backend, jobs, memory_bytes, reporter, train)
    configured = {name: backend.with_config(job.config) for name, job in jobs.items()}
    if isinstance(backend, DecoderBackend) and len(jobs) > 1:
        together = how_together(backend, list(jobs.values()))
        if together.at_once > 1:
            return train_together(backend, jobs, together, reporter, train)
    return {name: train(configured[name], name, reporter) for name in jobs}


def train_together(
    backend: DecoderBackend, jobs: Mapping[str, TrainingJob], together: Together, reporter: Reporter, train: TrainOne[T]
) -> dict[str, T]:
    """As `train_jointly`, with a choice that was made: at least two at once."""
    count, threads = min(together.at_once, len(jobs)), torch.get_num_threads()

    def train_one(part: Backend, name: str, reporter: Reporter) -> T:
        assert isinstance(part, _Part)
        return train(part.with_config(jobs[name].config), name, reporter)

    def on(parts: Sequence[_Part]) -> dict[str, T]:
        made = train_on_parts(lambda _: parts, jobs, reporter, train_one)
        assert made is not None
        return made

    if together.way == "cores":
        try:
            return on([_OnCores(backend, max(1, threads // count)) for _ in range(count)])
        finally:
            torch.set_num_threads(threads)
    recompute = backend.memory != "keep"
    with closing(Group(backend.decoder, recompute=recompute, most_tokens=together.most_tokens, seats=count)) as group:
        return on([_InBatch(backend, group, seat) for seat in range(count)])


def how_together(backend: DecoderBackend, jobs: Sequence[TrainingJob]) -> Together:
    """The choice for these jobs, with the memory that is free now."""
    geometry, kind = backend.decoder.geometry, backend.decoder.weights.norm.dtype
    size = TrainingSize(geometry, 0, kind.itemsize, max((len(row.ids) for job in jobs for row in job.train), default=0))
    configs, sizes = [job.config for job in jobs], [_size(geometry, job) for job in jobs]
    if not shares_a_base(geometry, configs):
        sizes = sizes[:1]
    used = psutil.Process().memory_info().rss  # the base is in memory already
    gflops = next((job.matrix_gflops for job in jobs if job.matrix_gflops), None) or matrix_gflops(kind)
    machine = Machine(torch.get_num_threads(), gflops, memory_limit(configs, used))
    return choose_together(size, backend.memory, sizes, machine)


def shares_a_base(geometry: Geometry, configs: Sequence[TrainConfig]) -> bool:
    """Whether adapters of these recipes may be trained at the same time.

    Experts sort the tokens of all rows, and what shall be the same in every bit must not depend on others.
    """
    return geometry.experts is None and not any(one.deterministic for one in configs)


def memory_limit(configs: Sequence[TrainConfig], used_bytes: int = 0) -> float:
    """Bytes that training may use: the lowest limit that is set, and what is free now or in use by this process."""
    limits = [one.max_memory_gb * 1e9 for one in configs if one.max_memory_gb is not None]
    return min([*limits, used_bytes + _FREE_SHARE * free_memory_bytes()])


def _size(geometry: Geometry, job: TrainingJob) -> JobSize:
    tokens = [len(row.ids) for row in job.train]
    of_step = job.config.rows_per_step * sum(tokens) / max(1, len(tokens))
    steps = job.config.epochs * steps_per_epoch(len(tokens), job.config.rows_per_step)
    return job_size(geometry, job.config, of_step, max([job.pack_tokens, *tokens]), job.group_tokens, steps)


def job_size(
    geometry: Geometry, config: TrainConfig, step_tokens: float, pack_tokens: int, group_tokens: int, steps: int
) -> JobSize:
    """The size of a job whose steps have so many tokens: those of their rows, without what they share."""
    lora, group = config.lora, max(group_tokens, pack_tokens)
    trainable, modules = lora_parameters(geometry, lora.rank, lora.targets), len(geometry.adapted_modules(lora.targets))
    passes = steps * max(1.0, step_tokens / group)
    return JobSize(trainable, modules, min(step_tokens, group), pack_tokens, group, passes)


class _Part:
    """A backend for the loop of one thread. Others have the same base."""

    machines = 1

    def __init__(self, whole: DecoderBackend) -> None:
        self._whole = whole

    def with_config(self, config: TrainConfig) -> Self:
        other = copy.copy(self)
        other._whole = self._whole.with_config(config)
        return other

    def engine(self) -> TrainingEngine:
        return self._whole.engine()

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        self._whole.write(adapter, folder)

    def parts(self, sizes: Sequence[int], memory_bytes: float, reporters: Sequence[Reporter]) -> Sequence[Backend]:
        return ()

    def peak_memory_bytes(self) -> int | None:
        return self._whole.peak_memory_bytes()

    def close(self) -> None: ...


class _OnCores(_Part):
    """Computes in the loop's own thread, on some of the cores."""

    def __init__(self, whole: DecoderBackend, threads: int) -> None:
        super().__init__(whole)
        self._threads = threads

    def engine(self) -> TrainingEngine:
        torch.set_num_threads(self._threads)  # of this thread, and of threads that begin later
        return super().engine()


class _InBatch(_Part):
    """One seat of a group."""

    def __init__(self, whole: DecoderBackend, group: Group, seat: int) -> None:
        super().__init__(whole)
        self._group, self._seat = group, seat

    def engine(self) -> TrainingEngine:
        return JointEngine(self._group, self._seat, self._whole.config)

    def close(self) -> None:
        self._group.leave(self._seat)
