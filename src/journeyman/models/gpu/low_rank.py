"""The thin products of an adapter: x Aᵀ, and the gradients of A, B and x, with dropout before A."""

from __future__ import annotations

import torch
from torch import Tensor

from journeyman.models.gpu.adapters import GroupAdapter
from journeyman.models.gpu.frozen import wide_product


def low_rank(x_TI: Tensor, adapter: GroupAdapter) -> Tensor:
    """x Aᵀ (T, R); with dropout, each part's A reads x with different elements dropped."""
    if not adapter.seeds:
        return x_TI @ adapter.a_RI.T
    low = [
        _dropped(x_TI, seed, adapter.dropped) @ adapter.a_RI[part.ranks].T
        for part, seed in zip(adapter.parts, adapter.seeds, strict=True)
    ]
    return torch.cat(low, dim=1)


def add_gradients(adapter: GroupAdapter, x_TI: Tensor, low_TR: Tensor, g_TO: Tensor) -> Tensor:
    """Adds the gradients of A and B to their sums, and returns that of x Aᵀ (T, R)."""
    slope_TR = torch.mm(g_TO, adapter.b_OR)
    if not adapter.seeds:
        adapter.gradient_a_RI += wide_product(slope_TR.T, x_TI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=False):
        x_again = _dropped(x_TI, seed, adapter.dropped)
        adapter.gradient_a_RI[part.ranks] += wide_product(slope_TR[:, part.ranks].T, x_again)
    slope_RO = wide_product(low_TR.T, g_TO)
    for part in adapter.parts:
        part.gradient_b_OR.add_(slope_RO[part.ranks, part.rows].T, alpha=adapter.scale)
    return slope_TR


def add_input_gradient(adapter: GroupAdapter, dx_TI: Tensor, slope_TR: Tensor) -> Tensor:
    if not adapter.seeds:
        return dx_TI.addmm_(slope_TR, adapter.a_RI)
    for part, seed in zip(adapter.parts, adapter.seeds, strict=True):
        dx_TI = _dropped(slope_TR[:, part.ranks] @ adapter.a_RI[part.ranks], seed, adapter.dropped, dx_TI)
    return dx_TI


def _dropped(x_TI: Tensor, seed: Tensor, share: float, add: Tensor | None = None) -> Tensor:
    """x / (1 - share) with a share of its elements dropped, the same ones for the same seed, plus `add`."""
    if x_TI.is_cuda:
        from journeyman.models.gpu import kernels

        made: Tensor = kernels.drop(x_TI, seed, share, add)
        return made
    kept = torch.rand(x_TI.shape, generator=torch.Generator().manual_seed(int(seed))) >= share
    dropped = x_TI * kept / (1 - share)
    return dropped if add is None else add + dropped
