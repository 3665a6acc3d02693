"""The training engine for one process on the CPU: our own decoder, with activations kept or recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.models.geometry import Geometry
from journeyman.training.allocation import in_memory
from journeyman.training.batches import Pack
from journeyman.training.engine import Heard, KeyedPack, LossSum
from journeyman.training.gradients import AdaptedPack, keep, loss_only, recompute
from journeyman.training.lora import Adapter
from journeyman.training.optimizer import AdapterOptimizer


class CpuEngine:
    """An engine.TrainingEngine; the numbers are bit-identical whether activations are kept or recomputed.

    Computing raises MemoryError if memory runs out.

    Args:
        recompute: recompute each layer in the backward pass instead of keeping its activations.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig, *, recompute: bool = False) -> None:
        self._decoder = decoder
        self._adapter = Adapter(decoder.geometry, config.lora, config.seed)
        self._optimizer = AdapterOptimizer(self._adapter.parameters, config)
        self._recompute = recompute

    @property
    def sizes(self) -> Geometry:
        return self._decoder.geometry

    def identity(self) -> str:
        return f"cpu {str(self._decoder.weights.norm.dtype).removeprefix('torch.')}"

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        parts = [AdaptedPack(one.pack, self._adapter.layers(one.key)) for one in packs]
        with self._optimizer.unchanged_on_error():
            loss = in_memory(lambda: self.gradients(parts, divisor, heard))
        return LossSum(loss, sum(one.pack.label_weight for one in packs))

    def gradients(self, parts: Sequence[AdaptedPack], divisor: float, heard: Heard) -> float:
        """Adds the gradients of the packs' loss, divided by `divisor`, to the adapter's; returns that loss."""
        return (recompute if self._recompute else keep)(self._decoder, parts, divisor, heard)

    def clip(self, most: float) -> float:
        return in_memory(lambda: self._optimizer.clip(most))

    def step(self, learning_rate: float) -> None:
        in_memory(lambda: self._optimizer.step(learning_rate))

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        lora = self._adapter.layers()
        loss = in_memory(lambda: loss_only(self._decoder, [AdaptedPack(one, lora) for one in packs], heard))
        return LossSum(loss, sum(one.label_weight for one in packs))

    def adapter(self) -> dict[str, Tensor]:
        return self._optimizer.values()

    def state(self) -> dict[str, Tensor]:
        return self._optimizer.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._optimizer.load_state(tensors)

    def memory_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def close(self) -> None: ...
