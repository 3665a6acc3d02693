"""The operations that each kind of device computes in its own way; the decoder is the same for all.

CpuOperations is the reference: models.gpu.operations computes the same with kernels for CUDA.
Shape letters: T tokens, H heads, K key/value heads, E head dimension, F feed-forward, L labels, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from journeyman.models.activation import gated
from journeyman.models.attention import AttentionRules, Packing, packed_attention
from journeyman.models.linear import Frozen, project
from journeyman.models.loss import label_loss
from journeyman.models.norm import rms_norm

if TYPE_CHECKING:
    from journeyman.models.decoder import LayerLora, LayerWeights


Activation = Literal["silu", "gelu", "clamped"]


class Operations(Protocol):
    """What a device computes. All of it is differentiable; frozen tensors get no gradient."""

    def packing(self, lengths: Sequence[int], prefixes: Sequence[int] | None, device: torch.device) -> Any:
        """The layout of a pack's segments, in the form that `attend` takes; it has `position_T`."""

    def attend(self, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Any, rules: AttentionRules) -> Tensor:
        """Causal attention of packed segments, (T, H, E): see attention.packed_attention."""

    def norm(self, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """Root mean square normalization of the last axis."""

    def add_norm(self, x_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x + added, and that sum normalized."""

    def rotate(self, x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary position embedding in the half-split layout (Su et al., 2021, arXiv 2104.09864).

        A table (T, 1, size) that is shorter than the head rotates its first elements only.
        """

    def project(self, x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
        """The outputs of linear layers that read the same x, with bias and low-rank update."""

    def feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, activation: Activation) -> Tensor:
        """down(activation(gate(x)) · up(x)), (T, D), each of the three with its low-rank update."""

    def label_loss(
        self, hidden_LD: Tensor, head_VD: Any, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        """The weighted sum of the cross-entropy: see loss.label_loss."""


class CpuOperations:
    """The operations in torch, for the CPU."""

    def packing(self, lengths: Sequence[int], prefixes: Sequence[int] | None, device: torch.device) -> Packing:
        return Packing(lengths, prefixes, device)

    def attend(self, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, packing: Any, rules: AttentionRules) -> Tensor:
        return packed_attention(q_THE, k_TKE, v_TKE, packing, rules)

    def norm(self, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight_D, eps)

    def add_norm(self, x_TD: Tensor, added_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        total_TD = x_TD + added_TD
        return total_TD, self.norm(total_TD, weight_D, eps)

    def rotate(self, x_THE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        size = cos.shape[-1]
        if size < x_THE.shape[-1]:
            return torch.cat([self.rotate(x_THE[..., :size], cos, sin), x_THE[..., size:]], dim=-1)
        left, right = x_THE.chunk(2, dim=-1)
        return x_THE * cos + torch.cat([-right, left], dim=-1) * sin

    def project(self, x: Tensor, modules: Sequence[str], layer: LayerWeights, adapters: LayerLora) -> list[Tensor]:
        frozen = [Frozen(layer.linear[module], layer.bias.get(module)) for module in modules]
        return project(x, frozen, [adapters.get(module) for module in modules])

    def feed_forward(self, x_TD: Tensor, layer: LayerWeights, adapters: LayerLora, activation: Activation) -> Tensor:
        if "gate_up_proj" in layer.linear:
            gate_TF, up_TF = self.project(x_TD, ("gate_up_proj",), layer, adapters)[0].chunk(2, dim=-1)
        else:
            gate_TF, up_TF = self.project(x_TD, ("gate_proj", "up_proj"), layer, adapters)
        return self.project(gated(gate_TF, up_TF, activation), ("down_proj",), layer, adapters)[0]

    def label_loss(
        self, hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor, weights_L: Tensor, cap: float | None
    ) -> Tensor:
        return label_loss(hidden_LD, head_VD, labels_L, weights_L, cap)
