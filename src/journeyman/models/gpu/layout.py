"""Strides that kernels and products expect."""

from __future__ import annotations

from torch import Tensor


def dense(g: Tensor) -> Tensor:
    """The tensor with a contiguous last axis."""
    return g if g.stride(-1) == 1 else g.contiguous()
