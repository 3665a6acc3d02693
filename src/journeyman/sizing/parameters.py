"""The exact number of trainable parameters of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class HasModuleShapes(Protocol):
    """The part of models.geometry.Geometry that is needed here."""

    @property
    def layers(self) -> int: ...

    def adapted_modules(self, targets: Sequence[str]) -> tuple[str, ...]: ...

    def module_shape(self, module: str) -> tuple[int, int]: ...

    def copies(self, module: str) -> int: ...


def lora_parameters(geometry: HasModuleShapes, rank: int, targets: Sequence[str]) -> int:
    """The sum of rank · (in + out) over all targets of all layers, and all experts."""
    modules = geometry.adapted_modules(targets)
    return geometry.layers * sum(
        rank * geometry.copies(module) * sum(geometry.module_shape(module)) for module in modules
    )
