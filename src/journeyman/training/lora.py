"""The trainable adapter: float32 masters of A and B for every target of every layer, of each expert.

Hu et al., 2021 (arXiv 2106.09685): A starts random, B starts at zero, so training starts from the base model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from journeyman.config import LoraConfig
from journeyman.models.decoder import LayerLora
from journeyman.models.families import Mixture, is_stacked
from journeyman.models.geometry import Geometry
from journeyman.models.linear import Dropout, LoraPair
from journeyman.models.mixture import GATE_UP
from journeyman.training.optimizer import load_values

_ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")


class Adapter:
    """LoRA parameters under the names, and in the shapes, that `peft` gives them.

    Attributes:
        modules: the adapted modules of every layer.
        parameters: name → float32 leaf tensor; A is (rank, in), B is (out, rank). Those of N experts are one tensor:
            A is (N · rank, in), expert by expert, and B is (out, rank · N), in which the expert's number changes first.
    """

    def __init__(self, geometry: Geometry, config: LoraConfig, seed: int) -> None:
        self.geometry = geometry
        self.config = config
        self.modules = geometry.adapted_modules(config.targets)
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, Tensor] = {}
        for layer in range(geometry.layers):
            for module in self.modules:
                rows, columns = geometry.module_shape(module)
                rank = config.rank * geometry.copies(module)
                # peft's initialization: kaiming_uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)).
                bound = 1 / math.sqrt(columns)
                a_RI = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
                b_OR = torch.zeros(rows, rank)
                self.parameters[self.name(layer, module, "A")] = a_RI.requires_grad_()
                self.parameters[self.name(layer, module, "B")] = b_OR.requires_grad_()

    def layers(self, dropout_key: str | None = None) -> list[LayerLora]:
        """The adapter in the form that the decoder takes, one mapping per layer.

        Args:
            dropout_key: seeds the dropout's random numbers, together with the seed; None: no dropout.
        """
        return [
            {module: self._pair(layer, module, dropout_key) for module in self.modules}
            for layer in range(self.geometry.layers)
        ]

    def matrices(self, layer: int, module: str) -> tuple[Tensor, Tensor]:
        """A (rank, in) and B (out, rank), views of the parameters; of experts, A (N, rank, in) and B (N, out, rank)."""
        a, b = (self.parameters[self.name(layer, module, side)] for side in "AB")
        if not is_stacked(module):
            return a, b
        count = self.geometry.copies(module)
        b_NOR = b.view(len(b), -1, count).permute(2, 0, 1)
        if module == GATE_UP and self.mixture.interleaved:
            b_NOR = torch.cat([b_NOR[:, ::2], b_NOR[:, 1::2]], dim=1)
        return a.view(count, -1, a.shape[1]), b_NOR

    def expert_parameters(self) -> list[str]:
        """The stacked parameters of `transformers` that the adapter changes, as peft's `target_parameters`."""
        stacked = [module for module in self.modules if is_stacked(module)]
        return [f"{self.mixture.place}.{module.removeprefix('experts.')}" for module in stacked]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies values into the adapter; names and shapes must match."""
        load_values(self.parameters, tensors)

    def _pair(self, layer: int, module: str, dropout_key: str | None) -> LoraPair:
        dropout = None
        if dropout_key is not None and self.config.dropout:
            key = f"{self.seed}/{dropout_key}/{layer}/{module}".encode()
            dropout = Dropout(self.config.dropout, int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()))
        a_RI, b_OR = self.matrices(layer, module)
        return LoraPair(a_RI, b_OR, self.config.alpha / self.config.rank, dropout)

    @property
    def mixture(self) -> Mixture:
        """The traits of the base's experts."""
        assert self.geometry.mixture is not None
        return self.geometry.mixture

    def name(self, layer: int, module: str, side: str) -> str:
        """The name of a LoRA tensor in `peft`'s file format."""
        place = f"{'self_attn' if module in _ATTENTION else 'mlp'}.{module}"
        if is_stacked(module):
            # peft wraps the experts once for each stacked parameter, gate_up_proj first.
            place = f"{self.mixture.place}.base_layer" if module == GATE_UP else self.mixture.place
        return f"base_model.model.model.layers.{layer}.{place}.lora_{side}.weight"
