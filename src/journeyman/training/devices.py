"""Finds the GPUs that can train, says why one cannot, and chooses where to train."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from journeyman.errors import InputError, OutOfMemory
from journeyman.foreign import plain

CPU, AUTO, CUDA = "cpu", "auto", "cuda"
_BFLOAT16 = (8, 0)
"""Compute capability from which a card multiplies bfloat16 (CUDA C++ Programming Guide, compute capabilities)."""
_ON_CPU = "Set train.device = 'cpu' to train on the processor"


@dataclass(frozen=True)
class Gpu:
    """A GPU on which a test allocation worked.

    Attributes:
        index: its number in torch.
        capability: compute capability, (major, minor).
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]

    @property
    def device(self) -> torch.device:
        return torch.device(CUDA, self.index)

    @property
    def bfloat16(self) -> bool:
        return self.capability >= _BFLOAT16

    def line(self) -> str:
        """For people: name and memory."""
        return f"{plain(self.name, 60)}, {self.free_bytes / 1e9:.1f} of {self.total_bytes / 1e9:.1f} GB free"


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        gpus: that can be used, the one with most free memory first.
        problem: why one that is there cannot be used; "" if there is none, or nothing is wrong.
        remedy: what solves it.
    """

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    remedy: str = ""


def survey() -> Survey:
    """Looks for GPUs; never raises because of one."""
    if torch.version.cuda is None:
        if torch.version.hip is not None:
            return Survey(problem="torch is built for ROCm, and training on AMD GPUs is not supported", remedy=_ON_CPU)
        if not _has_nvidia_gpu():
            return Survey()
        return Survey(
            problem=f"there is an NVIDIA GPU, but torch {torch.__version__} is built without CUDA",
            remedy="Install a build with CUDA: uv pip install --reinstall torch --torch-backend=auto",
        )
    # Read when CUDA starts. Packs differ in length, and blocks of a fixed size would leave unusable gaps.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return Survey(
            problem=f"CUDA does not start: {_first_sentence(error)}",
            remedy=f"Install or update the NVIDIA driver. {_ON_CPU}",
        )
    if importlib.util.find_spec("triton") is None:
        return Survey(problem="triton, in which the GPU's kernels are written, is not installed",
                      remedy="pip install triton")  # fmt: skip
    found, problem = [], ""
    for index in range(torch.cuda.device_count()):
        try:
            found.append(_gpu(index))
        except RuntimeError as error:
            problem = f"GPU {index} cannot be used: {_first_sentence(error)}"
    remedy = f"Free it (nvidia-smi lists its processes). {_ON_CPU}" if problem else ""
    return Survey(tuple(sorted(found, key=lambda one: (-one.free_bytes, one.index))), problem, remedy)


def chosen_gpu(device: str, precision: str = AUTO) -> Gpu | None:
    """The GPU that a value of train.device means; None: the processor.

    Args:
        precision: train.precision; a card without bfloat16 is used only for float32.

    Raises:
        InputError: a GPU is asked for, and there is none that can train.
    """
    if device == CPU:
        return None
    found = survey()
    gpus = [one for one in found.gpus if precision == "float32" or one.bfloat16]
    if device == AUTO:
        return gpus[0] if gpus else None
    if ":" in device:
        number = int(device.rpartition(":")[2])
        gpus = [one for one in gpus if one.index == number]
    if gpus:
        return gpus[0]
    if found.gpus:
        there = ", ".join(f"cuda:{one.index} ({plain(one.name, 60)})" for one in found.gpus)
        old = all(not one.bfloat16 for one in found.gpus) and precision != "float32"
        if old:
            raise InputError(f"train.device = {device!r}: {there} has no bfloat16",
                             f"Set train.precision = 'float32'. {_ON_CPU}")  # fmt: skip
        raise InputError(
            f"train.device = {device!r}: {found.problem or 'there is no such GPU'}; there is {there}", _ON_CPU
        )
    raise InputError(
        f"train.device = {device!r}: {found.problem or 'no NVIDIA GPU was found'}", found.remedy or _ON_CPU
    )


@contextmanager
def memory_of_gpu(doing: str, gpu: Gpu) -> Iterator[None]:
    """Turns running out of the card's memory into OutOfMemory, which says what was being done."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(gpu.index)
        raise OutOfMemory(
            f"out of GPU memory while {doing}: {plain(gpu.name, 60)} has {free / 1e9:.1f} of {total / 1e9:.1f} GB free",
            "nvidia-smi lists the processes that use it; then make a new plan: journeyman plan --redo",
        ) from error


def peak_gpu_bytes() -> int:
    """The most memory that torch has used on any GPU in this process."""
    return max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def several_gpus(first: Gpu, count: int, precision: str = AUTO) -> list[Gpu]:
    """`first`, and the others of this machine with most free memory.

    Raises:
        InputError: there are fewer.
    """
    if count == 1:
        return [first]
    others = [one for one in survey().gpus if one.index != first.index and (precision == "float32" or one.bfloat16)]
    if len(others) + 1 < count:
        there = "; ".join(one.line() for one in (first, *others))
        raise InputError(f"train.gpus = {count}: there is only {there}", f"Set train.gpus = {len(others) + 1}")
    return [first, *others[: count - 1]]


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    torch.zeros(1, device=torch.device(CUDA, index))  # a card in exclusive use by another process refuses this
    free, total = torch.cuda.mem_get_info(index)
    return Gpu(index, properties.name, total, free, (properties.major, properties.minor))


def _has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _first_sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return plain(text.splitlines()[0].partition(". ")[0], 200)
