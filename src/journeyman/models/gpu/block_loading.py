"""Loads a quantized GGUF onto a device as it is: its blocks go from the file to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.base import Base
from journeyman.models.decoder import LayerWeights
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.block_sizes import check_blocks
from journeyman.models.gpu.blocks import BlockRows, Blocks, Rows, Scratch
from journeyman.models.gpu.fused import GROUPS, fuse, together
from journeyman.models.gpu.limits import HEAD_ELEMENTS
from journeyman.models.gpu.staging import Staging
from journeyman.models.weights import load_layers, read_tensor


@dataclass
class BlockWeights:
    """Weights on a device, in blocks where the base has blocks. `head_VD` is the embedding itself if they are tied."""

    embedding: Tensor | Blocks
    layers: Sequence[LayerWeights]
    norm: Tensor
    head_VD: Any

    def embed(self, ids_T: Tensor) -> Tensor:
        if isinstance(self.embedding, Blocks):
            return self.embedding.look_up(ids_T)
        return F.embedding(ids_T, self.embedding)


class Scratches:
    """The memory in which the matrices of a decoder are dequantized: one place for each group, shared by all layers.

    Together they hold one layer, so a layer is dequantized once however many packs use it.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._groups = {group: Scratch(dtype, device) for group in GROUPS}
        self._head = Scratch(dtype, device, HEAD_ELEMENTS)

    def join(self, group: str, matrices: Sequence[Rows]) -> Tensor | Blocks:
        """The matrix of a group: in blocks if one of its members is."""
        plain = [one for one in matrices if isinstance(one, Tensor)]
        return together(plain) if len(plain) == len(matrices) else Blocks(matrices, self._groups[group])

    def head(self, matrix: Rows) -> Tensor | Blocks:
        """The head or the embedding."""
        return matrix if isinstance(matrix, Tensor) else Blocks([matrix], self._head)

    def allocate(self) -> None:
        for one in (*self._groups.values(), self._head):
            one.allocate()


def load_in_blocks(base: Base, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> BlockWeights:
    """The weights of a base, with matrices fused as GROUPS tells.

    Raises:
        InputError: the base has no matrices in blocks, or some in a format without a kernel, or its file was changed.
    """
    check_blocks(base, geometry)

    def move(value: Tensor) -> Tensor:
        return value.to(device, dtype)

    with Staging(device) as staging:

        def read(names: Sequence[str], reordered: Callable[[Tensor], Tensor] = lambda rows: rows) -> Rows:
            (name,) = names
            stored = base.blocks(name)
            if stored is None:
                return move(reordered(read_tensor(base, name, dtype)))
            raw = torch.empty(stored.rows, stored.row_bytes, dtype=torch.uint8, device=device)
            staging.read(stored.path, stored.offset, raw)
            return BlockRows(reordered(raw), stored.kind)

        scratches = Scratches(dtype, device)
        embedding = scratches.head(read(["token_embd.weight"]))
        layers = [fuse(one, move, join=scratches.join) for one in load_layers(base, geometry, dtype, read)]
        head = embedding if geometry.tied_head else scratches.head(read(["output.weight"]))
        scratches.allocate()
        return BlockWeights(embedding, layers, move(read_tensor(base, "output_norm.weight", dtype)), head)
