"""Trainable parameters of a LoRA adapter: exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class HasModuleShapes(Protocol):
    """What of a geometry is needed here; models.geometry.Geometry has it."""

    @property
    def layers(self) -> int: ...

    def module_shape(self, module: str) -> tuple[int, int]: ...


def lora_parameters(geometry: HasModuleShapes, rank: int, targets: Sequence[str]) -> int:
    """rank · (in + out) for every target of every layer."""
    return geometry.layers * sum(rank * sum(geometry.module_shape(module)) for module in targets)
