"""The exact number of trainable parameters of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.models.sizes import Sizes


def lora_parameters(sizes: Sizes, rank: int, targets: Sequence[str]) -> int:
    """The sum of rank · (in + out) over all matrices that the adapter changes."""
    return sum(rank * (rows + columns) for rows, columns in sizes.adapted_shapes(targets))
