"""Measures the processor, and sets up threads and the memory allocator."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable

import torch

from journeyman import peak_memory
from journeyman.free_memory import free_memory
from journeyman.processors import default_threads

PREPARED_PRODUCTS = 128
"""Enough for two packs of different lengths; preparing the products of a pack takes a tenth of a second."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of returning it to the system; True if that worked.

    On a virtual machine the first access to a page is slow, and returned memory must be accessed again as new pages.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except OSError:
        return False


def free_memory_bytes() -> int:
    """Memory that this process may still use: see free_memory."""
    return free_memory().bytes


def peak_resident_bytes() -> int:
    """The most memory that this process has had: see peak_memory. Where the system tells no more, what came before its
    program counts too."""
    found = peak_memory.peak_resident_bytes()
    if found is not None:
        return found
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peaks() -> None:
    """Lets the peaks of this process, of memory and of each GPU's, begin again: what came before does not count."""
    peak_memory.forget_peak()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def bound_product_caches() -> None:
    """Bounds what torch keeps of matrix products that it has prepared; to be called before the first product.

    For each shape of a bfloat16 product, oneDNN makes machine code and keeps it, 0.6 MB, and torch keeps it once more,
    both for 1,024 shapes. Packs have ever new lengths: without the bound, memory grows by 45 MB with each of them.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(PREPARED_PRODUCTS))


def use_threads(threads: int | None) -> int:
    """Sets torch's number of threads: as configured, or one for each physical core that may be used."""
    bound_product_caches()
    count = threads or default_threads()
    torch.set_num_threads(count)
    return count


def compute_dtype(precision: str) -> torch.dtype:
    """bfloat16 if the processor multiplies it natively; otherwise float32, because emulated bfloat16 is very slow."""
    if precision == "auto":
        return torch.bfloat16 if has_native_bfloat16() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def gpu_dtype(precision: str) -> torch.dtype:
    """The type of activations and frozen matrices on a GPU."""
    return torch.float32 if precision == "float32" else torch.bfloat16


def has_native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported()) or bool(amx and amx())


def matrix_gflops(dtype: torch.dtype, size: int = 1024, seconds: float = 0.4) -> float:
    """The processor's measured rate of square matrix products, in 10^9 operations per second."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    left @ right
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        left @ right
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start) / 1e9


def gpu_rates(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Measured rates of a GPU: matrix products, in 10^9 operations per second, and its memory, in bytes per second."""
    size = 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    copied = torch.empty_like(left)
    products = _seconds_of(lambda: torch.mm(left, right, out=copied), device)
    copies = _seconds_of(lambda: copied.copy_(left), device)
    return 2 * size**3 / products / 1e9, 2 * left.nbytes / copies


def _seconds_of(launch: Callable[[], object], device: torch.device, count: int = 20) -> float:
    for _ in range(3):
        launch()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        launch()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / count
