"""Loads the decoder of a base onto a device, with the operations and the fused matrices of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from journeyman.errors import InputError
from journeyman.models.base import Base
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.geometry import Factors
from journeyman.models.gpu.block_loading import load_in_blocks
from journeyman.models.gpu.fused import fuse
from journeyman.models.gpu.limits import not_computed
from journeyman.models.gpu.operations import GpuOperations
from journeyman.models.weights import ResidentWeights, load_layers, read_tensor


def load_on_gpu(
    base: Base,
    dtype: torch.dtype,
    device: torch.device,
    *,
    eight: bool = False,
    blocks: bool = False,
    deterministic: bool = False,
    factors: Factors | None = None,
    keep: Callable[[Iterator[LayerWeights]], Sequence[LayerWeights]] = list,
) -> Decoder:
    """The decoder of a base on a device, with fused matrices.

    Args:
        eight: store the matrices in eight bits.
        blocks: leave those that GGUF stores in blocks as they are; the values in products are the same.
        deterministic: see GpuOperations.
        factors: the rotary divisors that it will be served with (Geometry.factors), if the base has two sets.
        keep: takes the layers as they come, and returns all of them; not with blocks.

    Raises:
        InputError: the GPU engine does not compute this base, or it has no blocks, or some without a kernel.
    """
    geometry = base.geometry.with_factors(factors)
    if (kind := not_computed(geometry)) is not None:
        raise InputError(
            f"{base.path}: is {kind}, which is not trained on GPUs", "Set train.device = 'cpu', or use another base"
        )
    operations = operations_on(device, deterministic=deterministic)
    if blocks:
        assert not eight
        return Decoder(geometry, load_in_blocks(base, geometry, dtype, device), operations)

    def move(value: Tensor) -> Tensor:
        return value.to(device, dtype)

    embedding = move(read_tensor(base, "token_embd.weight", dtype))
    weights = ResidentWeights(
        embedding_VD=embedding,
        layers=keep(fuse(layer, move, eight=eight) for layer in load_layers(base, geometry, dtype)),
        norm=move(read_tensor(base, "output_norm.weight", dtype)),
        head_VD=embedding if geometry.tied_head else move(read_tensor(base, "output.weight", dtype)),
    )
    return Decoder(geometry, weights, operations)


def operations_on(device: torch.device, *, deterministic: bool = False) -> GpuOperations:
    return GpuOperations(torch.zeros((), device=device, requires_grad=True), deterministic=deterministic)
