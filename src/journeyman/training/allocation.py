"""Memory that torch cannot allocate on the processor: a plain RuntimeError of torch, and a MemoryError of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_ALLOCATOR = "DefaultCPUAllocator"
"""What torch names in the message; it has no exception of its own for this, as it has for GPUs."""


def in_memory(compute: Callable[[], T]) -> T:
    """The result of `compute`.

    Raises:
        MemoryError: torch could not allocate memory.
    """
    try:
        return compute()
    except RuntimeError as error:
        if _ALLOCATOR not in str(error):
            raise
        what = str(error).partition(_ALLOCATOR)[2].strip(": ").split("\n")[0]
    raise MemoryError(what)  # outside of the handler, because the exception keeps the tensors of the step alive
