"""The engine that the training loop has, if workers on the nodes of a cluster compute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safetensors.torch import load
from torch import Tensor

from journeyman.cluster.training_group import Group
from journeyman.models.geometry import Geometry
from journeyman.training.batches import Pack
from journeyman.training.calls import Call
from journeyman.training.engine import Heard, KeyedPack, LossSum


class RemoteEngine:
    """An engine.TrainingEngine. Its methods raise what those of Group raise."""

    def __init__(self, group: Group, geometry: Geometry) -> None:
        self._group, self._geometry = group, geometry
        self._identity: str = group.all("engine")[0]

    @property
    def sizes(self) -> Geometry:
        return self._geometry

    def identity(self) -> str:
        return self._identity

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        heard(0.0)  # not at the end: once the workers have the gradients, the call must count
        made: LossSum = self._group.call(Call("accumulate", packs, divisor), heard)
        return made

    def clip(self, most: float) -> float:
        norm: float = self._group.call(Call("clip", number=most))
        return norm

    def step(self, learning_rate: float) -> None:
        self._group.call(Call("step", number=learning_rate))

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        heard(0.0)
        made: LossSum = self._group.call(Call("evaluate", [KeyedPack(one, "") for one in packs]), heard)
        return made

    def adapter(self) -> dict[str, Tensor]:
        return load(self._group.call(Call("adapter")))

    def state(self) -> dict[str, Tensor]:
        return load(self._group.call(Call("state")))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._group.call(Call("load_state", tensors=tensors))

    def memory_bytes(self) -> int:
        return self._group.memory

    def close(self) -> None:
        """The workers stay for the next engine."""
