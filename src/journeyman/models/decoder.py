"""The decoder of the Llama / Mistral / Qwen2 / Qwen3 family, for training.

Its input is one pack of tokens: several concatenated segments, each of which attends only to itself and its prefix.
Shape letters: T tokens of the pack, D hidden, H heads, K key/value heads, E head dimension, R rank,
V vocabulary. tests/test_promise.py compares its logits with those of `transformers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.attention import Packing, packed_attention
from journeyman.models.geometry import Geometry
from journeyman.models.linear import Frozen, LoraPair, project
from journeyman.models.norm import rms_norm
from journeyman.models.rotary import rotary_tables

LayerLora = Mapping[str, LoraPair]
"""module name ("q_proj", …) → LoraPair, for one layer."""


@dataclass
class LayerWeights:
    """The frozen tensors of one layer, in the layout of `transformers` (out_features, in_features)."""

    attention_norm: Tensor
    ffn_norm: Tensor
    linear: Mapping[str, Tensor]
    bias: Mapping[str, Tensor]
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


class Weights(Protocol):
    """The frozen tensors of a decoder: resident, or loaded on demand (models.weights)."""

    def embed(self, ids_T: Tensor) -> Tensor:
        """The embeddings (T, D)."""

    @property
    def layers(self) -> Sequence[LayerWeights]: ...

    @property
    def norm(self) -> Tensor: ...

    @property
    def head_VD(self) -> Tensor:
        """The output matrix. Keep it while using it: another access may load it again."""


@dataclass(frozen=True)
class Layout:
    """The layout of a pack: which tokens attend to which, and their rotary tables (T, 1, E)."""

    packing: Packing
    cos_TE: Tensor
    sin_TE: Tensor


class Decoder:
    """Computes hidden states and logits of packed segments."""

    def __init__(self, geometry: Geometry, weights: Weights) -> None:
        self.geometry = geometry
        self.weights = weights

    def hidden_states(
        self,
        ids_T: Tensor,
        lengths: Sequence[int],
        lora: Sequence[LayerLora] | None = None,
        on_progress: Callable[[float], None] | None = None,
        at_L: Tensor | None = None,
        prefixes: Sequence[int] | None = None,
    ) -> Tensor:
        """Final normalized hidden states (T, D), or (L, D) at some positions only.

        Args:
            ids_T: token ids of all segments, concatenated, int64.
            lengths: tokens of each segment; they add up to T.
            lora: one LayerLora per layer, or None for the base model.
            on_progress: called after every layer, forward and backward, with the share of both that is done.
            at_L: the wanted positions; None: all.
            prefixes: for each segment, the number of the one that it continues, or -1 (models.attention).
        """
        assert sum(lengths) == len(ids_T)
        x_TD, count = self.weights.embed(ids_T), self.geometry.layers
        layout = self.layout(lengths, x_TD, prefixes)
        for index, layer in enumerate(self.weights.layers):
            adapters: LayerLora = lora[index] if lora is not None else {}
            x_TD = self.block(x_TD, layer, adapters, layout, at_L if index == count - 1 else None)
            if on_progress is not None:
                _tell_progress(x_TD, index, count, on_progress)
        return self.final_norm(x_TD)

    def layout(self, lengths: Sequence[int], like: Tensor, prefixes: Sequence[int] | None = None) -> Layout:
        """The Layout of segments of these lengths, on the device and in the type of `like`."""
        packing = Packing(lengths, prefixes, like.device)
        return Layout(packing, *rotary_tables(self.geometry, packing.position_T, like))

    def block(
        self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, layout: Layout, at_L: Tensor | None = None
    ) -> Tensor:
        """One layer. With `at_L` (in the last layer), what follows attention is computed at those positions only."""
        mixed_TQ = self._attention(self._norm(x_TD, layer.attention_norm), layer, adapters, layout)
        if at_L is not None:
            x_TD, mixed_TQ = x_TD[at_L], mixed_TQ[at_L]
        x_TD = x_TD + _project(mixed_TQ, ("o_proj",), layer, adapters)[0]
        return x_TD + self._feed_forward(self._norm(x_TD, layer.ffn_norm), layer, adapters)

    def final_norm(self, x_TD: Tensor) -> Tensor:
        return self._norm(x_TD, self.weights.norm)

    def logits(self, ids_T: Tensor, lengths: Sequence[int], lora: Sequence[LayerLora] | None = None) -> Tensor:
        """Logits (T, V) at all positions. Training uses `loss.label_loss` instead, which never builds all of them."""
        return F.linear(self.hidden_states(ids_T, lengths, lora), self.weights.head_VD)

    def _attention(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, layout: Layout) -> Tensor:
        g = self.geometry
        q, k, v = _project(x_TD, ("q_proj", "k_proj", "v_proj"), layer, adapters)
        q_THE, k_TKE = q.view(-1, g.heads, g.head_dim), k.view(-1, g.kv_heads, g.head_dim)
        v_TKE = v.view(-1, g.kv_heads, g.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            q_THE, k_TKE = self._norm(q_THE, layer.q_norm), self._norm(k_TKE, layer.k_norm)
        q_THE, k_TKE = _rotate(q_THE, layout.cos_TE, layout.sin_TE), _rotate(k_TKE, layout.cos_TE, layout.sin_TE)
        return packed_attention(q_THE, k_TKE, v_TKE, layout.packing).flatten(1)

    def _feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora) -> Tensor:
        gate, up = _project(x_TD, ("gate_proj", "up_proj"), layer, adapters)
        return _project(F.silu(gate) * up, ("down_proj",), layer, adapters)[0]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.geometry.rms_eps)


def _tell_progress(x_TD: Tensor, index: int, layers: int, on_progress: Callable[[float], None]) -> None:
    """Reports progress: the forward pass is the first half, the backward pass, from the last layer on, the second."""
    on_progress((index + 1) / (2 * layers))
    if x_TD.requires_grad:
        x_TD.register_hook(lambda _: on_progress(1 - (index + 1) / (2 * layers)))  # type: ignore[no-untyped-call]


def _project(x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
    frozen = [Frozen(layer.linear[module], layer.bias.get(module)) for module in modules]
    return project(x, frozen, [adapters.get(module) for module in modules])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout (Su et al., 2021, arXiv 2104.09864)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin
