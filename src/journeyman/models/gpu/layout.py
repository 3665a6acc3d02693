"""How tensors lie: on the device, and with the strides that kernels and products expect."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the copy does not wait."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value


def dense(g: Tensor) -> Tensor:
    """The tensor with a contiguous last axis."""
    return g if g.stride(-1) == 1 else g.contiguous()
