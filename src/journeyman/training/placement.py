"""Decides where training runs: on which device, in which type, and with which memory mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from journeyman.config import TrainConfig
from journeyman.errors import InputError, NoGo
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.limits import not_computed
from journeyman.models.sizes import Sizes
from journeyman.reasons import Reason, planning
from journeyman.sizing.duration import gpu_training_seconds, training_seconds
from journeyman.sizing.gpu_memory import gpu_layer_bytes_per_token, gpu_training_bytes
from journeyman.sizing.memory import MemoryWay, TrainingSize, training_bytes, ways_of
from journeyman.sizing.memory_choice import Candidates, MemoryChoice, choose_memory
from journeyman.training.batches import PACK_TOKENS
from journeyman.training.devices import AUTO, CPU, Gpu, chosen_gpu, several_gpus, survey
from journeyman.training.hardware import compute_dtype, free_memory_bytes, gpu_dtype, gpu_rates, matrix_gflops

_FREE_SHARE, _FREE_SHARE_OF_GPU = 0.9, 0.95
_MOST_GROUP, _MOST_GROUP_OF_GPU = 8192, 1 << 16
_LONG_PROMPT = 512
_GPU_PACKS = (16384, 8192, 4096, 2048, 1024, 512)
_SMALLER = "Lower train.pack_tokens or curate.max_length, use a smaller base, or raise train.max_memory_gb"


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        trainable: parameters of the adapter.
        longest_row, step_tokens: tokens of the longest row, and of a mean optimizer step.
        prompt_tokens: mean length of a prompt. Long prompts usually have a common part, which a larger pack computes
            once for more rows.
        stored_bytes: that the base needs if a GPU keeps it quantized as it is stored; 0: it cannot.
    """

    sizes: Sizes
    trainable: int
    longest_row: int
    step_tokens: int
    prompt_tokens: float = 0.0
    stored_bytes: int = 0


@dataclass(frozen=True)
class Placement:
    """Where training runs.

    Attributes:
        gpus: that train together; none: the processor.
        sharded: each GPU keeps a part of the base only.
        gflops: measured rate of matrix products.
        bandwidth: measured rate of the GPU's memory, bytes per second; 0: the processor.
        notes: why a GPU that is there is not used.
    """

    gpus: Sequence[Gpu]
    dtype: torch.dtype
    gflops: float
    memory: MemoryChoice
    bandwidth: float = 0.0
    sharded: bool = False
    notes: Sequence[Reason] = ()

    @property
    def gpu(self) -> Gpu | None:
        """The first of them."""
        return self.gpus[0] if self.gpus else None

    def seconds(self, work: Workload, train: TrainConfig, tokens: int, steps: int) -> float:
        """Estimated time of training, without validation.

        Args:
            tokens, steps: of all epochs.
        """
        sizes, recompute = work.sizes, self.memory.way != "keep"
        if self.gpu is None or not isinstance(sizes, Geometry):
            linear, hidden = sizes.linear_parameters, sizes.hidden
            return training_seconds(linear, hidden, tokens, work.step_tokens, self.gflops, recompute=recompute)
        kept = gpu_layer_bytes_per_token(sizes, self.dtype.itemsize, train.lora.targets)
        packs = max(steps, tokens // self.memory.pack_tokens)
        rows = train.rows_per_step * max(1, steps)
        alone = gpu_training_seconds(
            sizes, kept, tokens, tokens / rows, packs, self.gflops, self.bandwidth, recompute=recompute
        )
        return alone / len(self.gpus)


def place(work: Workload, train: TrainConfig) -> Placement:
    """Chooses the device by train.device, and measures it for half a second.

    Raises:
        InputError: what the config asks for is not there, or does not work with this base.
        NoGo: training does not fit in memory.
    """
    first, notes = _usable(work, train)
    if first is None and train.gpus > 1 and train.device != AUTO:
        raise InputError(f"train.gpus = {train.gpus}, but train.device = {train.device!r}", "Set train.gpus = 1")
    if first is not None:
        gpus = several_gpus(first, train.gpus, train.precision)
        try:
            memory, sharded = memory_on_gpus(work, train, gpus)
        except NoGo as error:
            if train.device != AUTO:
                raise
            notes = [planning.GpuTooSmall(first.line(), error.reason.sentence())]
        else:
            dtype = gpu_dtype(train.precision)
            gflops, bandwidth = gpu_rates(dtype, first.device)
            return Placement(gpus, dtype, gflops, memory, bandwidth, sharded, notes)
    dtype = compute_dtype(train.precision)
    memory = memory_on_processor(work, dtype.itemsize, train)
    return Placement((), dtype, matrix_gflops(dtype), memory, notes=notes)


def _usable(work: Workload, train: TrainConfig) -> tuple[Gpu | None, list[Reason]]:
    """The GPU, if it can train this base, and otherwise why it is not used."""
    gpu = chosen_gpu(train.device, train.precision)
    if gpu is None:
        found = survey() if train.device != CPU else None
        if found is None or not (found.gpus or found.problem):
            return None, []
        if found.gpus:
            return None, [planning.GpuWithoutBfloat16(found.gpus[0].line())]
        return None, [planning.GpuNotUsable(found.problem, found.remedy)]
    kind = _not_on_gpus(work.sizes)
    if kind is None:
        return gpu, []
    if train.device != AUTO:
        raise InputError(
            f"train.device = {train.device!r}: the base is {kind}, which is not trained on GPUs",
            "Set train.device = 'cpu'",
        )
    return None, [planning.BaseNotOnGpu(kind)]


def _not_on_gpus(sizes: Sizes) -> str | None:
    """What a base is that cannot be trained on a GPU; None: it can."""
    if not isinstance(sizes, Geometry):
        return "an architecture that transformers trains"
    return not_computed(sizes)


def memory_on_gpus(work: Workload, train: TrainConfig, gpus: Sequence[Gpu]) -> tuple[MemoryChoice, bool]:
    """The memory mode on some GPUs, and whether each keeps only a part of the base; raises NoGo if none fits."""
    gpu = min(gpus, key=lambda one: one.free_bytes)
    if len(gpus) == 1:
        return memory_on_gpu(work, train, gpu), False
    try:
        return memory_on_gpu(work, train, gpu, len(gpus)), False
    except NoGo:
        if train.memory not in (AUTO, "recompute"):
            raise
        return memory_on_gpu(work, train, gpu, len(gpus), sharded=True), True


def memory_on_gpu(
    work: Workload, train: TrainConfig, gpu: Gpu, count: int = 1, *, sharded: bool = False
) -> MemoryChoice:
    """The memory mode on one of `count` GPUs that have a part of the rows, or also of the base; NoGo if none fits."""
    dtype = gpu_dtype(train.precision)
    size = TrainingSize(work.sizes, work.trainable, dtype.itemsize, work.longest_row)
    limit = int(train.max_memory_gb * 1e9) if train.max_memory_gb else int(_FREE_SHARE_OF_GPU * gpu.free_bytes)
    most = max(work.longest_row, min(_GPU_PACKS[0], -(-train.rows_per_step // count) * work.longest_row))
    packs = [most, *(one for one in _GPU_PACKS if work.longest_row <= one < most)]
    if train.pack_tokens is not None:
        packs = [max(train.pack_tokens, work.longest_row)]
    if train.lora.dropout and count > 1:  # packs are not divided then: see data_parallel
        packs = [one for one in packs if one <= max(work.longest_row, work.step_tokens // count)] or packs[-1:]
    ways: tuple[MemoryWay, ...] = ("recompute",) if sharded else ways_on_gpu(work)
    found = choose_memory(
        Candidates(ways, packs, limit, 0),
        lambda way, pack, group: gpu_training_bytes(
            size, way, pack, group, train.lora.targets,
            stored_bytes=work.stored_bytes, shards=count if sharded else 1,
        ),
        train.memory,
        f"{_SMALLER}. {gpu.line()}; nvidia-smi lists the processes that use it",
    )  # fmt: skip
    # The engine computes one pack after the other, so a group of them only saves waiting for the device; but layers
    # that are gathered are gathered once for a group, for which the input of each layer must be kept.
    group = found.pack_tokens * count if sharded else max(found.pack_tokens, _MOST_GROUP_OF_GPU)
    return MemoryChoice(found.way, found.pack_tokens, group, found.bytes)


def ways_on_gpu(work: Workload) -> tuple[MemoryWay, ...]:
    return ("keep", "recompute", "stream") if work.stored_bytes else ("keep", "recompute")


def memory_on_processor(work: Workload, compute_bytes: int, train: TrainConfig) -> MemoryChoice:
    """The memory mode on the processor; raises NoGo if none fits."""
    size = TrainingSize(work.sizes, work.trainable, compute_bytes, work.longest_row)
    limit = int(train.max_memory_gb * 1e9) if train.max_memory_gb else int(_FREE_SHARE * free_memory_bytes())
    packs = [PACK_TOKENS] if train.pack_tokens is None else [train.pack_tokens]
    if train.pack_tokens is None and work.prompt_tokens >= _LONG_PROMPT:
        most = max(PACK_TOKENS, work.step_tokens)
        packs = [PACK_TOKENS * times for times in (4, 2, 1) if PACK_TOKENS * times <= most]
    return choose_memory(
        Candidates(
            ways_of(work.sizes),
            [max(one, work.longest_row) for one in packs],
            limit,
            min(work.step_tokens, _MOST_GROUP),
        ),
        lambda way, pack, group: training_bytes(size, way, pack, group),
        train.memory,
        _SMALLER,
    )
