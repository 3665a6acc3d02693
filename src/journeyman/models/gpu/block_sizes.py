"""Whether a base can stay in GGUF's blocks on a GPU, and how many bytes it has there."""

from __future__ import annotations

import math

from journeyman.errors import InputError
from journeyman.models.base import Base
from journeyman.models.geometry import Geometry, tensor_shapes
from journeyman.models.gpu.block_formats import FORMATS
from journeyman.models.gpu.limits import HEAD_ELEMENTS


def bytes_in_blocks(base: Base, geometry: Geometry, compute_bytes: int = 2) -> int:
    """Bytes of the weights on a GPU, and of what is dequantized at a time; 0: `load_in_blocks` refuses them."""
    try:
        check_blocks(base, geometry)
    except InputError:
        return 0
    total = (geometry.layer_parameters + min(HEAD_ELEMENTS, geometry.vocab * geometry.hidden)) * compute_bytes
    for name, shape in tensor_shapes(geometry).items():
        stored = base.blocks(name) if len(shape) == 2 else None
        total += stored.rows * stored.row_bytes if stored is not None else math.prod(shape) * compute_bytes
    return total


def check_blocks(base: Base, geometry: Geometry) -> None:
    """Raises InputError before anything is read."""
    names = [name for name, shape in tensor_shapes(geometry).items() if len(shape) == 2]
    kinds = {name: stored.kind for name in names if (stored := base.blocks(name)) is not None}
    if not kinds:
        raise InputError(
            f"{base.path}: none of its matrices is stored in blocks of GGUF, so it cannot be trained in them",
            "Use a quantized GGUF, such as one in Q4_K_M",
        )
    for name, kind in kinds.items():
        if kind not in FORMATS:
            raise InputError(
                f"{base.path}: tensor {name!r} has type {kind}, which the GPU engine cannot keep in blocks",
                f"Use a GGUF in {', '.join(FORMATS)}",
            )
