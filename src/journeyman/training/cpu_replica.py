"""The CPU's engine as one of several: its gradient is also one flat tensor, which can be added to that of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import Heard, KeyedPack, LossSum


class CpuReplica(CpuEngine):
    """A data_parallel.ReplicaEngine with the identity and, alone, the numbers of CpuEngine.

    The gradients of the parameters are views of the flat tensor while the step has a gradient, and None otherwise.

    Attributes:
        gradient: see data_parallel.ReplicaEngine.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig, *, recompute: bool = False) -> None:
        super().__init__(decoder, config, recompute=recompute)
        each = self._adapter.parameters
        self.gradient = torch.zeros(sum(one.numel() for one in each.values()))
        parts = torch.split(self.gradient, [one.numel() for one in each.values()])
        self._views = {name: part.view_as(one) for (name, one), part in zip(each.items(), parts, strict=True)}
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the step so far has a gradient; setting it attaches the flat tensor to the parameters."""
        return self._begun

    @begun.setter
    def begun(self, value: bool) -> None:
        self._begun = value
        self._optimizer.set_gradients(self._views if value else {})

    @property
    def parameters(self) -> Tensor:
        return torch.cat([one.detach().flatten() for one in self._adapter.parameters.values()])

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        before, begun = self.gradient.clone(), self.begun
        self.begun = True
        try:
            return super().accumulate(packs, divisor, heard)
        except BaseException:
            self.gradient.copy_(before)
            self.begun = begun
            raise

    def step(self, learning_rate: float) -> None:
        super().step(learning_rate)
        self.gradient.zero_()
        self.begun = False

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_state(tensors)
        loaded = self._optimizer.gradients()
        self.gradient.zero_()
        for name, value in loaded.items():
            self._views[name].copy_(value)
        self.begun = bool(loaded)
