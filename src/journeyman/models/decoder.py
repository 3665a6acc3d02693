"""The decoder of the Llama / Mistral / Qwen2 / Qwen3 family, for training.

One packed row of tokens goes in: several segments laid end to end, each attending only to itself.
Shape letters: T tokens of the pack, D hidden, H heads, K key/value heads, E head dimension, R rank,
V vocabulary. Checked against `transformers` logit by logit in tests/test_promise.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.attention import Packing, packed_attention
from journeyman.models.geometry import Geometry
from journeyman.models.linear import Frozen, LoraPair, project

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


@dataclass
class Weights:
    """All frozen tensors of a decoder. `head_VD` is the embedding itself where the two are tied."""

    embedding_VD: Tensor
    layers: Sequence[LayerWeights]
    norm: Tensor
    head_VD: Tensor


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
    ) -> Tensor:
        """Final normalized hidden states (T, D).

        Args:
            ids_T: token ids of all segments, end to end, int64.
            lengths: tokens of each segment; they add up to T.
            lora: one LayerLora a layer, or None for the base model.
            on_progress: hears the share of forward and backward that is done, after every layer of either.
        """
        assert sum(lengths) == len(ids_T)
        x_TD = F.embedding(ids_T, self.weights.embedding_VD)
        packing = Packing(lengths, x_TD.device)
        cos_TE, sin_TE = self._rotary_tables(packing.position_T, x_TD)
        for index, layer in enumerate(self.weights.layers):
            adapters: LayerLora = lora[index] if lora is not None else {}
            normed = self._norm(x_TD, layer.attention_norm)
            x_TD = x_TD + self._attention(normed, layer, adapters, cos_TE, sin_TE, packing)
            x_TD = x_TD + self._feed_forward(self._norm(x_TD, layer.ffn_norm), layer, adapters)
            if on_progress is not None:
                _tell_progress(x_TD, index, len(self.weights.layers), on_progress)
        return self._norm(x_TD, self.weights.norm)

    def logits(self, ids_T: Tensor, lengths: Sequence[int], lora: Sequence[LayerLora] | None = None) -> Tensor:
        """Logits (T, V) at every position. Training uses `loss.label_loss`, which never builds this table."""
        return F.linear(self.hidden_states(ids_T, lengths, lora), self.weights.head_VD)

    def _attention(
        self,
        x_TD: Tensor,
        layer: LayerWeights,
        adapters: LayerLora,
        cos_TE: Tensor,
        sin_TE: Tensor,
        packing: Packing,
    ) -> Tensor:
        g = self.geometry
        q, k, v = _project(x_TD, ("q_proj", "k_proj", "v_proj"), layer, adapters)
        q_THE, k_TKE = q.view(-1, g.heads, g.head_dim), k.view(-1, g.kv_heads, g.head_dim)
        v_TKE = v.view(-1, g.kv_heads, g.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            q_THE, k_TKE = self._norm(q_THE, layer.q_norm), self._norm(k_TKE, layer.k_norm)
        q_THE, k_TKE = _rotate(q_THE, cos_TE, sin_TE), _rotate(k_TKE, cos_TE, sin_TE)
        mixed_THE = packed_attention(q_THE, k_TKE, v_TKE, packing)
        return _project(mixed_THE.flatten(1), ("o_proj",), layer, adapters)[0]

    def _feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora) -> Tensor:
        gate, up = _project(x_TD, ("gate_proj", "up_proj"), layer, adapters)
        return _project(F.silu(gate) * up, ("down_proj",), layer, adapters)[0]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        # The mean of squares is taken in float32 whatever the compute type: bf16 loses it to rounding.
        return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), self.geometry.rms_eps).to(x.dtype)

    def _rotary_tables(self, position_T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        g = self.geometry
        exponent = torch.arange(0, g.head_dim, 2, device=like.device, dtype=torch.float32) / g.head_dim
        angle = torch.outer(position_T.float(), g.rope_theta**-exponent)
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos().to(like.dtype)[:, None], angle.sin().to(like.dtype)[:, None]


def _tell_progress(x_TD: Tensor, index: int, layers: int, on_progress: Callable[[float], None]) -> None:
    """Forward is the first half; in the second, a layer's output meets its gradient, the last layer's first."""
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
