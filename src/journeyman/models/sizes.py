"""The sizes of a base that planning and reporting need, whoever computes it.

`geometry.Geometry` has them for our own decoder, `ModelSizes` for every other architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from journeyman.models.targets import adapted_names, short_names


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


@dataclass(frozen=True)
class ModelSizes:
    """The Sizes of an architecture that only `transformers` computes.

    Attributes:
        architecture: the name of the class in `transformers`.
        ffn: the widest output of a linear layer.
        cache_width: elements of keys and values that the engine keeps for a token, in all layers.
        kept_width: elements that the linear layers of all blocks read and make for a token.
        stored_scores: heads whose attention scores are stored; 0 if attention computes them piece by piece.
        linear: full name of each linear layer that an adapter may change → (out_features, in_features).
        others: the last parts of the names of all other modules.
    """

    architecture: str
    parameters: int
    linear_parameters: int
    layers: int
    hidden: int
    vocab: int
    context: int
    ffn: int
    cache_width: int
    kept_width: int
    stored_scores: int
    linear: Mapping[str, tuple[int, int]]
    others: frozenset[str]

    def adapted_shapes(self, targets: Sequence[str]) -> Sequence[tuple[int, int]]:
        return [self.linear[name] for name in adapted_names(list(self.linear), targets)]

    def unambiguous(self, names: Sequence[str]) -> list[str]:
        """The last parts of the modules' names if no other module ends in one of them, otherwise their full names."""
        short, rest = short_names(names), set(self.linear) - set(names)
        return short if not set(short) & {*self.others, *short_names(list(rest))} else list(names)
