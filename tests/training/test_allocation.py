"""Memory that torch cannot allocate on the processor is a MemoryError, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from journeyman.training.allocation import in_memory


def test_what_torch_cannot_allocate_is_a_memory_error_that_keeps_no_tensors() -> None:
    with pytest.raises(MemoryError, match="allocate") as raised:
        in_memory(lambda: torch.empty(2**46, dtype=torch.uint8))
    assert raised.value.__context__ is None


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size"):
        in_memory(lambda: torch.ones(2) + torch.ones(3))
    assert in_memory(lambda: 3) == 3
