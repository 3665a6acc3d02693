"""The sizes of a base that planning and reporting need, whoever computes it.

`geometry.Geometry` has them for our own decoder, `transformers_model.ModelSizes` for every other architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sizes(Protocol):
    """Numbers of parameters, widths, and the shapes of the matrices that an adapter changes."""

    @property
    def parameters(self) -> int:
        """All parameters of the model, as `transformers` counts them."""

    @property
    def linear_parameters(self) -> int:
        """Parameters in the matrix products of a token, including the head but not the embedding look-up."""

    @property
    def layers(self) -> int: ...

    @property
    def hidden(self) -> int: ...

    @property
    def vocab(self) -> int: ...

    @property
    def context(self) -> int:
        """The most tokens that the base was made for."""

    @property
    def ffn(self) -> int:
        """The widest vector of a block."""

    @property
    def cache_width(self) -> int:
        """Elements of keys and values that the engine keeps for a token, in all layers."""

    def adapted_shapes(self, targets: Sequence[str]) -> Sequence[tuple[int, int]]:
        """(out_features, in_features) of each matrix that an adapter for these `train.lora.targets` changes."""
