"""The training engine for one process on the CPU: torch's fused AdamW, with activations kept or recomputed.

AdamW: Loshchilov & Hutter, 2017 (arXiv 1711.05101).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil
import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.models.geometry import Geometry
from journeyman.training.batches import Pack
from journeyman.training.engine import Heard, KeyedPack, LossSum
from journeyman.training.gradients import AdaptedPack, keep, loss_only, recompute
from journeyman.training.lora import Adapter

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class CpuEngine:
    """An engine.TrainingEngine; the numbers are bit-identical whether activations are kept or recomputed.

    Args:
        recompute: recompute each layer in the backward pass instead of keeping its activations.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig, *, recompute: bool = False) -> None:
        self._decoder = decoder
        self._adapter = Adapter(decoder.geometry, config.lora, config.seed)
        self._parameters = self._adapter.parameters
        self._recompute = recompute
        self._optimizer = torch.optim.AdamW(
            list(self._parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    @property
    def geometry(self) -> Geometry:
        return self._decoder.geometry

    def identity(self) -> str:
        return f"cpu {str(self._decoder.weights.norm.dtype).removeprefix('torch.')}"

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        before = self._gradients()
        parts = [AdaptedPack(one.pack, self._adapter.layers(one.key)) for one in packs]
        try:
            loss = (recompute if self._recompute else keep)(self._decoder, parts, divisor, heard)
        except BaseException:
            self._set_gradients(before)
            raise
        return LossSum(loss, sum(one.pack.label_weight for one in packs))

    def clip(self, most: float) -> float:
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), most).item()

    def step(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        lora = self._adapter.layers()
        loss = loss_only(self._decoder, [AdaptedPack(one, lora) for one in packs], heard)
        return LossSum(loss, sum(one.label_weight for one in packs))

    def adapter(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._parameters.items()}

    def state(self) -> dict[str, Tensor]:
        tensors = {f"adapter/{name}": value.detach() for name, value in self._parameters.items()}
        tensors |= {f"gradient/{name}": v.grad for name, v in self._parameters.items() if v.grad is not None}
        for name, value in self._parameters.items():
            for key, moment in self._optimizer.state.get(value, {}).items():
                tensors[f"optimizer/{key}/{name}"] = moment
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._adapter.load(_under(tensors, "adapter/"))
        self._set_gradients(_under(tensors, "gradient/"))
        moments = {key: _under(tensors, f"optimizer/{key}/") for key in _MOMENTS}
        self._optimizer.state.clear()
        for name, value in self._parameters.items():
            if name in moments["step"]:
                self._optimizer.state[value] = {key: values[name] for key, values in moments.items()}

    def memory_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def close(self) -> None: ...

    def _gradients(self) -> dict[str, Tensor]:
        return {name: v.grad.clone() for name, v in self._parameters.items() if v.grad is not None}

    def _set_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        for name, value in self._parameters.items():
            value.grad = gradients.get(name)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.clone() for name, value in tensors.items() if name.startswith(prefix)}
