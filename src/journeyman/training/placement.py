"""Decides where training runs: on which device, in which type, and with which memory mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from journeyman.config import TrainConfig
from journeyman.errors import InputError, NoGo
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.limits import not_computed
from journeyman.models.sizes import Sizes
from journeyman.reasons import Reason, planning
from journeyman.sizing.duration import gpu_training_seconds, training_seconds
from journeyman.sizing.gpu_memory import (
    GPU_RUNTIME_BYTES,
    gpu_layer_bytes_per_token,
    gpu_training_bytes,
    gpu_training_parts,
)
from journeyman.sizing.memory import (
    RUNTIME_BYTES,
    MemoryWay,
    Part,
    TrainingSize,
    size_of_pack,
    training_bytes,
    training_parts,
    ways_of,
)
from journeyman.sizing.memory_choice import Candidates, DoesNotFit, MemoryChoice, choose_memory
from journeyman.training.batches import PACK_TOKENS
from journeyman.training.devices import AUTO, CPU, Gpu, chosen_gpu, several_gpus, survey
from journeyman.training.hardware import compute_dtype, free_memory_bytes, gpu_dtype, gpu_rates, matrix_gflops
from journeyman.training.schedule import Schedule, groups_of, packs_of

_FREE_SHARE, _FREE_SHARE_OF_GPU = 0.9, 0.95
_MOST_GROUP, _MOST_GROUP_OF_GPU = 8192, 1 << 16
_LONG_PROMPT = 512
_MOST_PADDING = 3.0
"""Cells for each token; a row that is much longer than the others is mostly in a pack with the next longer ones."""
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
        misfit: training does not fit in memory, and `memory` is what would need least.
    """

    gpus: Sequence[Gpu]
    dtype: torch.dtype
    gflops: float
    memory: MemoryChoice
    bandwidth: float = 0.0
    sharded: bool = False
    notes: Sequence[Reason] = ()
    misfit: DoesNotFit | None = None

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

    If training does not fit in memory, this is told in `Placement.misfit`.

    Raises:
        InputError: what the config asks for is not there, or does not work with this base.
    """
    first, notes = _usable(work, train)
    if first is None and train.gpus > 1 and train.device != AUTO:
        raise InputError(f"train.gpus = {train.gpus}, but train.device = {train.device!r}", "Set train.gpus = 1")
    if first is None and train.gpus > 1 and not notes:
        raise InputError(f"train.gpus = {train.gpus}, but no NVIDIA GPU was found", "Set train.gpus = 1")
    if first is not None:
        gpus = several_gpus(first, train.gpus, train.precision)
        memory, sharded, misfit = _or_least(lambda: memory_on_gpus(work, train, gpus))
        if misfit is None or train.device != AUTO:
            dtype = gpu_dtype(train.precision)
            gflops, bandwidth = gpu_rates(dtype, first.device)
            return Placement(gpus, dtype, gflops, memory, bandwidth, sharded, notes, misfit)
        notes = [planning.GpuTooSmall(first.line(), misfit.reason.sentence())]
    dtype = compute_dtype(train.precision)
    memory, _, misfit = _or_least(lambda: (memory_on_processor(work, dtype.itemsize, train), False))
    return Placement((), dtype, matrix_gflops(dtype), memory, notes=notes, misfit=misfit)


def _or_least(choose: Callable[[], tuple[MemoryChoice, bool]]) -> tuple[MemoryChoice, bool, DoesNotFit | None]:
    """What is chosen, or what needs least with the reason why it does not fit."""
    try:
        return *choose(), None
    except DoesNotFit as misfit:
        return misfit.least, False, misfit


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


def trains_on_gpus(sizes: Sizes) -> bool:
    return _not_on_gpus(sizes) is None


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
    limit = limit_of(train, [gpu])
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
        GPU_RUNTIME_BYTES,
    )  # fmt: skip
    # The engine computes one pack after the other, so a group of them only saves waiting for the device; but layers
    # that are gathered are gathered once for a group, for which the input of each layer must be kept.
    group = found.pack_tokens * count if sharded else max(found.pack_tokens, _MOST_GROUP_OF_GPU)
    return MemoryChoice(found.way, found.pack_tokens, group, found.bytes)


def ways_on_gpu(work: Workload) -> tuple[MemoryWay, ...]:
    return ("keep", "recompute", "stream") if work.stored_bytes else ("keep", "recompute")


def limit_of(train: TrainConfig, gpus: Sequence[Gpu]) -> int:
    """Bytes that training may use, of the GPU with least free memory, or of the processor's memory."""
    if train.max_memory_gb is not None:
        return int(train.max_memory_gb * 1e9)
    if gpus:
        return int(_FREE_SHARE_OF_GPU * min(one.free_bytes for one in gpus))
    return int(_FREE_SHARE * free_memory_bytes())


def parts_of(work: Workload, train: TrainConfig, placed: Placement) -> dict[Part, int]:
    """What the peak of training consists of, in bytes, of the memory that is scarce."""
    memory = placed.memory
    if not placed.gpus:
        pack = _largest_pack(work, train, memory.pack_tokens)
        size = _size_on_processor(work, placed.dtype.itemsize, train, pack)
        return training_parts(size, memory.way, pack, _largest_pack(work, train, memory.group_tokens))
    size = TrainingSize(work.sizes, work.trainable, placed.dtype.itemsize, work.longest_row)
    group = memory.group_tokens if placed.sharded else memory.pack_tokens
    return gpu_training_parts(
        size, memory.way, memory.pack_tokens, group, train.lora.targets,
        stored_bytes=work.stored_bytes, shards=len(placed.gpus) if placed.sharded else 1,
    )  # fmt: skip


def parts_of_packs(
    work: Workload, train: TrainConfig, placed: Placement, schedules: Sequence[Schedule]
) -> dict[Part, int]:
    """As parts_of, of the group that needs most, where the packs are known: parts_of takes each for the worst one.

    Args:
        schedules: of all adapters.
    """
    most = parts_of(work, train, placed)
    if placed.gpus or not isinstance(work.sizes, Geometry):
        return most
    found: list[dict[Part, int]] = []
    packs, validation = packs_of(schedules), [pack for one in schedules for pack in one.validation]
    validated = max((len(one.ids_T) for one in validation), default=0)
    for group in groups_of(schedules):
        tokens = sum(len(one.ids_T) for one in group)
        for one in group:
            size = size_of_pack(work.sizes, work.trainable, placed.dtype.itemsize, one.lengths, one.prefixes)
            found.append(training_parts(size, placed.memory.way, len(one.ids_T), tokens, packs, validated))
    return max(found, key=lambda parts: sum(parts.values()), default=most)


def _largest_pack(work: Workload, train: TrainConfig, most: int) -> int:
    """Tokens of a pack of at most `most` tokens: it has no more than the rows of a step."""
    return min(most, train.rows_per_step * work.longest_row)


def _size_on_processor(work: Workload, compute_bytes: int, train: TrainConfig, pack_tokens: int) -> TrainingSize:
    """With the padding of rows of the mean length to the longest; those of several packs of a step are sorted."""
    mean = work.step_tokens / train.rows_per_step
    packs = max(1.0, work.step_tokens / pack_tokens)
    padding = 1 + max(0.0, work.longest_row / mean - 1) / packs if mean >= 1 else 1.0
    return TrainingSize(work.sizes, work.trainable, compute_bytes, work.longest_row, min(padding, _MOST_PADDING))


def memory_on_processor(work: Workload, compute_bytes: int, train: TrainConfig) -> MemoryChoice:
    """The memory mode on the processor; raises NoGo if none fits."""

    def estimate(way: MemoryWay, pack: int, group: int) -> int:
        pack, group = _largest_pack(work, train, pack), _largest_pack(work, train, group)
        return training_bytes(_size_on_processor(work, compute_bytes, train, pack), way, pack, group)

    limit = limit_of(train, ())
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
        estimate,
        train.memory,
        _SMALLER,
        RUNTIME_BYTES,
    )
