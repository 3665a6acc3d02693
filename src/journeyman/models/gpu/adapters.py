"""The low-rank updates of one layer on a GPU: matrices that read the same input are updated together.

q, k and v are one matrix there, and so are gate and up. With x the input and W the frozen matrix of a group,

    y = x Wᵀ + (x Aᵀ) Bᵀ        A: all A matrices, one below the other; B: s·B of each part, in a block of its own

so x is read once, and two thin products serve the whole group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One module of a group: its rows of the output, its ranks, and where its gradients are summed (float32)."""

    rows: slice
    ranks: slice
    gradient_b_OR: Tensor


@dataclass
class GroupAdapter:
    """The update of one group of matrices.

    Attributes:
        a_RI: all A, in the compute type.
        b_OR: all B, multiplied by the scale, in the compute type; zero where a part's rows meet another's ranks.
        gradient_a_RI: where the gradients of A are summed, float32.
        scale: alpha / rank.
        parts: the modules.
        seeds: of dropout, an int32 on the device for each part; empty: no dropout.
        dropped: the share that is dropped.
    """

    a_RI: Tensor
    b_OR: Tensor
    gradient_a_RI: Tensor
    scale: float
    parts: list[Part]
    seeds: Sequence[Tensor] = field(default_factory=list)
    dropped: float = 0.0
