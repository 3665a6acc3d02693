"""The decoder, for training: one block for all families.

A block is attention and a gated feed-forward network, each with norms around it. What differs between families is
data: which tensors a layer has (LayerWeights), and numbers (Geometry); models.families is the table.

Its input is one pack of tokens: several concatenated segments, each of which attends only to itself and its prefix.
Shape letters: T tokens of the pack, D hidden, H heads, K key/value heads, E head dimension, R rank, F feed-forward,
V vocabulary. tests/models/test_families.py compares its logits with those of `transformers` and llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.attention import AttentionRules
from journeyman.models.geometry import Geometry
from journeyman.models.mixture import Router, mixture
from journeyman.models.operations import CpuOperations, Operations
from journeyman.models.rotary import alternate_tables, rotary_tables

LayerLora = Mapping[str, Any]
"""module name ("q_proj", …) → its update in the form that the operations take (linear.LoraPair), for one layer."""
AT_ALL_TOKENS = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj"})
"""The modules that read all tokens in the last layer, too; the others read those that are wanted there."""


@dataclass
class LayerWeights:
    """The frozen tensors of one layer, in the layout of `transformers` (out_features, in_features).

    Attributes:
        linear: module → its matrix; those of experts are stacked (N, out_features, in_features), their biases too.
            On a GPU they may be fused, in eight bits or in GGUF's blocks (models.gpu).
        attention_norm, ffn_norm: weights of the norms before attention and feed-forward; None: no norm there.
        attention_post_norm, ffn_post_norm: of the norms of their outputs.
        q_norm, k_norm: of queries and keys, for one head (E) or for all of them together (H·E).
        alternate: the layer is one of `Geometry.alternate`.
        router: of a layer with experts.
        sinks: for each head, the product of a query and a key that has no value (H); None: no such key.
    """

    linear: Mapping[str, Any]
    bias: Mapping[str, Tensor] = field(default_factory=dict)
    attention_norm: Tensor | None = None
    ffn_norm: Tensor | None = None
    attention_post_norm: Tensor | None = None
    ffn_post_norm: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    alternate: bool = False
    router: Router | None = None
    sinks: Tensor | None = None


class Weights(Protocol):
    """The frozen tensors of a decoder: resident, or loaded on demand (models.weights)."""

    def embed(self, ids_T: Tensor) -> Tensor:
        """The embeddings (T, D)."""

    @property
    def layers(self) -> Sequence[LayerWeights]: ...

    @property
    def norm(self) -> Tensor: ...

    @property
    def head_VD(self) -> Any:
        """The output matrix, in the form that the operations take: a Tensor, except in GGUF's blocks on a GPU.

        Keep it while using it: another access may load it again.
        """


@dataclass(frozen=True)
class Layout:
    """The layout of a pack: which tokens attend to which, and what depends on their positions.

    Attributes:
        rotary: cosines and sines (T, 1, E).
        alternate: those of the alternate layers; None: no rotary embedding there.
        temperature: what multiplies the queries (T, 1, 1); None: nothing.
    """

    packing: Any
    rotary: tuple[Tensor, Tensor]
    alternate: tuple[Tensor, Tensor] | None = None
    temperature: Tensor | None = None


class Decoder:
    """Computes hidden states and logits of packed segments."""

    def __init__(self, geometry: Geometry, weights: Weights, operations: Operations | None = None) -> None:
        self.geometry = geometry
        self.weights = weights
        self.operations = operations or CpuOperations()
        window = geometry.alternate.window if geometry.alternate is not None else None
        self._rules = AttentionRules(geometry.attention_scale, None, geometry.attention_cap)
        self._alternate_rules = AttentionRules(geometry.attention_scale, window, geometry.attention_cap)

    def embed(self, ids_T: Tensor) -> Tensor:
        """The input of the first layer (T, D)."""
        return _scaled(self.weights.embed(ids_T), self.geometry.embedding_scale)

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
        x_TD = self.embed(ids_T)
        return self.through_layers(x_TD, self.layout(lengths, x_TD, prefixes), lora, at_L, on_progress)

    def through_layers(
        self,
        x_TD: Tensor,
        layout: Layout,
        lora: Sequence[LayerLora] | None,
        at_L: Tensor | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Final normalized hidden states of embeddings (T, D); arguments as those of `hidden_states`."""
        count = self.geometry.layers
        for index, layer in enumerate(self.weights.layers):
            adapters: LayerLora = lora[index] if lora is not None else {}
            x_TD = self.block(x_TD, layer, adapters, layout, at_L if index == count - 1 else None)
            if on_progress is not None:
                _tell_progress(x_TD, index, count, on_progress)
        return self.final_norm(x_TD)

    def layout(self, lengths: Sequence[int], like: Tensor, prefixes: Sequence[int] | None = None) -> Layout:
        """The Layout of segments of these lengths, on the device and in the type of `like`."""
        packing, g = self.operations.packing(lengths, prefixes, like.device), self.geometry
        position_T, temperature = packing.position_T, None
        if g.temperature is not None:
            steps_T = torch.log1p(position_T.div(g.temperature.context, rounding_mode="floor").float())
            temperature = (1 + g.temperature.scale * steps_T).to(like.dtype)[:, None, None]
        tables = rotary_tables(g, position_T, like), alternate_tables(g, position_T, like)
        return Layout(packing, *tables, temperature)

    def block(
        self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, layout: Layout, at_L: Tensor | None = None
    ) -> Tensor:
        """One layer. With `at_L` (in the last layer), what follows attention is computed at those positions only."""
        g = self.geometry
        mixed_TQ = self._attention(self._norm(x_TD, layer.attention_norm), layer, adapters, layout)
        if at_L is not None:
            x_TD, mixed_TQ = x_TD[at_L], mixed_TQ[at_L]
        added_TD = self._norm(
            self.operations.project(mixed_TQ, ("o_proj",), layer, adapters)[0], layer.attention_post_norm
        )
        added_TD = _scaled(added_TD, g.residual_scale)
        if layer.ffn_norm is None:
            x_TD = into_TD = x_TD + added_TD
        else:
            x_TD, into_TD = self.operations.add_norm(x_TD, added_TD, layer.ffn_norm, g.rms_eps)
        added_TD = self._feed_forward(into_TD, layer, adapters)
        return x_TD + _scaled(self._norm(added_TD, layer.ffn_post_norm), g.residual_scale)

    def final_norm(self, x_TD: Tensor) -> Tensor:
        """What the head multiplies: the scale of the logits is applied here, to the smaller tensor."""
        return _scaled(self._norm(x_TD, self.weights.norm), self.geometry.logit_scale)

    def logits(self, ids_T: Tensor, lengths: Sequence[int], lora: Sequence[LayerLora] | None = None) -> Tensor:
        """Logits (T, V) at all positions. Training uses `loss.label_loss` instead, which never builds all of them."""
        return self.head(self.hidden_states(ids_T, lengths, lora))

    def head(self, hidden_TD: Tensor) -> Tensor:
        """The logits (T, V) of final normalized hidden states."""
        logits_TV, cap = F.linear(hidden_TD, self.weights.head_VD), self.geometry.logit_cap
        return logits_TV if cap is None else torch.tanh(logits_TV / cap) * cap

    def _attention(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, layout: Layout) -> Tensor:
        g = self.geometry
        if "qkv_proj" in layer.linear:
            kv = g.kv_heads * g.head_dim
            (fused,) = self.operations.project(x_TD, ("qkv_proj",), layer, adapters)
            q, k, v = torch.split(fused, [g.heads * g.head_dim, kv, kv], dim=-1)
        else:
            q, k, v = self.operations.project(x_TD, ("q_proj", "k_proj", "v_proj"), layer, adapters)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = self._norm(q.view(len(q), -1, len(layer.q_norm)), layer.q_norm)
            k = self._norm(k.view(len(k), -1, len(layer.k_norm)), layer.k_norm)
        q_THE, k_TKE = q.view(-1, g.heads, g.head_dim), k.view(-1, g.kv_heads, g.head_dim)
        v_TKE = v.view(-1, g.kv_heads, g.head_dim)
        tables = layout.alternate if layer.alternate else layout.rotary
        if tables is not None:
            q_THE, k_TKE = (self.operations.rotate(one, *tables) for one in (q_THE, k_TKE))
        if layout.temperature is not None:
            q_THE = q_THE * layout.temperature
        rules = self._alternate_rules if layer.alternate else self._rules
        if layer.sinks is not None:
            rules = replace(rules, sinks_H=layer.sinks)
        return self.operations.attend(q_THE, k_TKE, v_TKE, layout.packing, rules).flatten(1)

    def _feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora) -> Tensor:
        if layer.router is not None:
            return mixture(x_TD, layer.router, layer.linear, layer.bias, adapters, self.geometry)
        return self.operations.feed_forward(x_TD, layer, adapters, self.geometry.family.activation)

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else self.operations.norm(x, weight, self.geometry.rms_eps)

    def label_loss(self, hidden_LD: Tensor, head_VD: Any, labels_L: Tensor, weights_L: Tensor) -> Tensor:
        """The weighted sum of the cross-entropy at labeled positions: see loss.label_loss."""
        return self.operations.label_loss(hidden_LD, head_VD, labels_L, weights_L, self.geometry.logit_cap)


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale


def _tell_progress(x_TD: Tensor, index: int, layers: int, on_progress: Callable[[float], None]) -> None:
    """Reports progress: the forward pass is the first half, the backward pass, from the last layer on, the second."""
    on_progress((index + 1) / (2 * layers))
    if x_TD.requires_grad:
        x_TD.register_hook(lambda _: on_progress(1 - (index + 1) / (2 * layers)))  # type: ignore[no-untyped-call]
