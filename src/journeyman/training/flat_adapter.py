"""The adapter on a device: one flat tensor, so that a step of the optimizer is one kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder, LayerLora, LayerWeights
from journeyman.models.gpu.adapters import GroupAdapter, Part
from journeyman.models.gpu.fused import GROUPS, members
from journeyman.models.gpu.layout import moved
from journeyman.training.lora import Adapter

_AT_ONCE = 32
"""Matrices B that are scaled at once: the scaled float32 values of all of them would be as large as B itself."""


class FlatAdapter:
    """The adapter in one flat float32 tensor, and its form for the operations.

    Attributes:
        values: the flat tensor: for each layer and group first all A, then all B.
        gradient: its gradient, of the same layout.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig) -> None:
        self._config, self._lora = config, config.lora
        start = Adapter(decoder.geometry, config.lora, config.seed)
        device = decoder.weights.norm.device
        size = sum(value.numel() for value in start.parameters.values())
        self.values, self.gradient = (torch.zeros(size, device=device) for _ in range(2))
        self._slices: dict[str, tuple[slice, tuple[int, int]]] = {}
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._scaled: list[tuple[Tensor, Tensor]] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._taken = 0
        modules = decoder.geometry.modules
        self._layers = [
            {group: self._group(start, index, layer, group, members(group, modules)) for group in GROUPS
             if any(one in start.modules for one in members(group, modules))}
            for index, layer in enumerate(decoder.weights.layers)
        ]  # fmt: skip
        self.fill(self.values, {name: value.detach() for name, value in start.parameters.items()})
        self.refresh()

    def _group(
        self, start: Adapter, index: int, layer: LayerWeights, group: str, modules: Sequence[str]
    ) -> GroupAdapter:
        """Takes the group's places in the flat tensors."""
        geometry, rank = start.geometry, self._lora.rank
        like = layer.attention_norm if layer.attention_norm is not None else layer.attention_post_norm
        assert like is not None
        adapted = [one for one in modules if one in start.modules]
        inputs, ranks = geometry.module_shape(modules[0])[1], rank * len(adapted)
        a_RI = like.new_zeros(ranks, inputs)
        b_OR = like.new_zeros(sum(geometry.module_shape(one)[0] for one in modules), ranks)
        all_a = self._take(ranks * inputs)
        for place, module in enumerate(adapted):
            at = all_a.start + place * rank * inputs
            self._slices[start.name(index, module, "A")] = slice(at, at + rank * inputs), (rank, inputs)
        self._copies.append((a_RI, self.values[all_a].view(ranks, inputs)))
        parts: list[Part] = []
        row = 0
        for module in modules:
            outputs = geometry.module_shape(module)[0]
            if module in adapted:
                at_rank = rank * len(parts)
                ranks_of, rows = slice(at_rank, at_rank + rank), slice(row, row + outputs)
                at_b = self._take(rank * outputs)
                self._slices[start.name(index, module, "B")] = at_b, (outputs, rank)
                self._scaled.append((b_OR[rows, ranks_of], self.values[at_b].view(outputs, rank)))
                parts.append(Part(rows, ranks_of, self.gradient[at_b].view(outputs, rank)))
            row += outputs
        return GroupAdapter(a_RI, b_OR, self.gradient[all_a].view(ranks, inputs), self._scale, parts)

    def _take(self, size: int) -> slice:
        self._taken += size
        return slice(self._taken - size, self._taken)

    @property
    def _scale(self) -> float:
        return self._lora.alpha / self._lora.rank

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat tensor of this layout, under `peft`'s names."""
        return {name: flat[place].view(shape) for name, (place, shape) in self._slices.items()}

    def fill(self, flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copies values into a flat tensor of this layout; names and shapes must match."""
        views = self.named(flat)
        assert tensors.keys() == views.keys()
        for name, value in tensors.items():
            views[name].copy_(value)

    @torch.no_grad()
    def refresh(self) -> None:
        """Brings the copies that the operations read up to date with `values`.

        There are several for each matrix; on a GPU they are launched as one graph.
        """
        if self.values.is_cuda and self._graph is None:
            self._copy()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._copy()
        self._copy() if self._graph is None else self._graph.replay()

    def _copy(self) -> None:
        if self._copies:
            views, values = map(list, zip(*self._copies, strict=True))
            torch._foreach_copy_(views, values)
            for start in range(0, len(self._scaled), _AT_ONCE):
                views, values = map(list, zip(*self._scaled[start : start + _AT_ONCE], strict=True))
                torch._foreach_copy_(views, torch._foreach_mul(values, self._scale))

    def layers(self, dropout_key: str | None = None) -> list[LayerLora]:
        """The adapter in the form that the operations take, one mapping per layer; see lora.Adapter.layers."""
        if dropout_key is None:
            return list(self._layers)
        return self.dropping(moved(self.seeds(dropout_key), self.values.device))

    def seeds(self, dropout_key: str) -> Tensor:
        """The seeds of dropout, of 31 bits, int32 on the host: one for each module of each layer; none without it."""
        found: list[int] = []
        if not self._lora.dropout:
            return torch.tensor(found, dtype=torch.int32)
        for index, groups in enumerate(self._layers):
            for group, one in groups.items():
                digest = hashlib.blake2b(f"{self._config.seed}/{dropout_key}/{index}/{group}".encode()).digest()
                found += [int.from_bytes(digest[4 * n : 4 * n + 4]) >> 1 for n in range(len(one.parts))]
        return torch.tensor(found, dtype=torch.int32)

    def dropping(self, seeds: Tensor) -> list[LayerLora]:
        """As `layers`, with dropout by seeds on the device; without it if there are none."""
        if not len(seeds):
            return list(self._layers)
        each = iter(seeds.unbind())
        return [
            {group: replace(one, seeds=[next(each) for _ in one.parts], dropped=self._lora.dropout)
             for group, one in groups.items()}
            for groups in self._layers
        ]  # fmt: skip
