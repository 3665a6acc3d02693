"""Training on the processor that pulls the general rows' answers towards the base by KL(base || tuned) instead of
learning them as labels. A plain computation by autograd, for `forgetting.py`: the base's logits come from the same
decoder without an adapter, and those of a pack are all in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.base import Base
from journeyman.models.decoder import Decoder, LayerLora
from journeyman.models.geometry import Factors
from journeyman.sizing.memory import MemoryWay
from journeyman.training.backends import DecoderBackend, Gpus
from journeyman.training.batches import Pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import Heard, KeyedPack, LossSum, TrainingEngine

MARK = 0.999
"""The weight of general rows, by which their labels are recognized."""


def pack_loss(decoder: Decoder, pack: Pack, lora: Sequence[LayerLora], weight: float) -> Tensor:
    """Cross-entropy of the roles' labels, and `weight` times the divergence from the base at the general ones."""
    asked = pack.ids_T, pack.lengths
    hidden_LD = decoder.hidden_states(*asked, lora, None, pack.source_L, pack.prefixes)
    general_L = pack.weights_L == torch.tensor(MARK)
    head_VD = decoder.weights.head_VD
    loss = hidden_LD.new_zeros((), dtype=torch.float32)
    if not general_L.all():
        own_L = ~general_L
        loss = decoder.label_loss(hidden_LD[own_L], head_VD, pack.labels_L[own_L], pack.weights_L[own_L])
    if general_L.any():
        with torch.no_grad():
            base_LD = decoder.hidden_states(*asked, None, None, pack.source_L, pack.prefixes)
            base_LV = F.log_softmax(decoder.head(base_LD[general_L]).float(), -1)
        tuned_LV = F.log_softmax(decoder.head(hidden_LD[general_L]).float(), -1)
        loss = loss + weight * F.kl_div(tuned_LV, base_LV, reduction="sum", log_target=True)
    return loss


class KlEngine(CpuEngine):
    def __init__(self, decoder: Decoder, config: TrainConfig, weight: float) -> None:
        super().__init__(decoder, config)
        self._weight = weight

    def identity(self) -> str:
        return f"{super().identity()}, KL times {self._weight:g}"

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        total, done = 0.0, 0
        with self._optimizer.unchanged_on_error():
            for one in packs:
                loss = pack_loss(self._decoder, one.pack, self._adapter.layers(one.key), self._weight) / divisor
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
                done += one.pack.row_tokens
                heard(done)
        return LossSum(total, sum(one.pack.label_weight for one in packs))


class KlBackend(DecoderBackend):
    def __init__(
        self, base: Base, config: TrainConfig, memory: MemoryWay, factors: Factors | None, gpus: Gpus | None,
        weight: float,
    ) -> None:  # fmt: skip
        assert gpus is None, "--device cpu"
        super().__init__(base, config, "keep", factors)
        self._weight = weight

    def engine(self) -> TrainingEngine:
        return KlEngine(self._decoder, self._config, self._weight)
