"""The training engine for one GPU: the same decoder and the same loop as on the CPU.

What differs from training.cpu: the frozen matrices are fused (models.gpu.fused), the operations are those of
models.gpu.operations, and the adapter, its gradients and its moments each are one flat tensor, so that a step of the
optimizer is one kernel. The host reads a value from the device twice per step: the loss and the norm of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.errors import OutOfMemory
from journeyman.models.decoder import Decoder
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.blocks import Blocks
from journeyman.models.gpu.frozen import Eight
from journeyman.models.gpu.layout import moved
from journeyman.models.gpu.sharded import ShardedLayers
from journeyman.models.weights import ResidentWeights
from journeyman.sizing.gpu_memory import MOST_CAPTURED
from journeyman.training.batches import Pack
from journeyman.training.captured import CapturedPasses
from journeyman.training.division import longest_row, smaller_packs
from journeyman.training.engine import Heard, KeyedPack, LossSum
from journeyman.training.flat_adapter import FlatAdapter
from journeyman.training.gradients import AdaptedPack, keep, loss_only, recompute
from journeyman.training.optimizer import under

_BETAS, _EPS = (0.9, 0.999), 1e-8


class GpuEngine:
    """An engine.TrainingEngine for one device.

    If the device's memory runs out, the packs are computed again with less: first by recomputing the layers, then in
    smaller packs, down to one row. The sums are the same up to rounding; with dropout, other elements are dropped.

    Args:
        recompute: recompute each layer in the backward pass instead of keeping its activations.
        say: called with a line of text when that happens.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: TrainConfig,
        *,
        recompute: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._decoder, self._config = decoder, config
        self._device = decoder.weights.norm.device
        self._adapter = FlatAdapter(decoder, config)
        self._recompute, self._say = recompute, say
        self._most_tokens: int | None = None
        # Devices that share the layers need each other for each layer: all of them take the same path.
        self._lockstep = isinstance(decoder.weights.layers, ShardedLayers)
        # What is dequantized or gathered, and when, is decided by Python, which a graph does not run.
        resident = isinstance(decoder.weights, ResidentWeights) and not self._lockstep
        small = resident and decoder.geometry.linear_parameters <= MOST_CAPTURED
        self._captured = CapturedPasses(decoder, self._adapter.dropping) if small else None
        self._first, self._second = (torch.zeros_like(self._adapter.values) for _ in range(2))
        self._steps = torch.zeros((), device=self._device)
        self.begun = False

    @property
    def sizes(self) -> Geometry:
        return self._decoder.geometry

    def identity(self) -> str:
        weights = self._decoder.weights
        eight = " fp8" if any(isinstance(one, Eight) for one in weights.layers[0].linear.values()) else ""
        pieces = " blocks" if isinstance(weights.head_VD, Blocks) else ""  # its gradient is summed in another order
        return f"{self._device.type} {str(weights.norm.dtype).removeprefix('torch.')}{eight}{pieces}"

    @property
    def parameters(self) -> Tensor:
        """The adapter, flat: see data_parallel.ReplicaEngine."""
        return self._adapter.values

    @property
    def gradient(self) -> Tensor:
        """The gradient of the step so far, flat."""
        return self._adapter.gradient

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        before = self._adapter.gradient.clone() if self.begun else None

        def gradients() -> float:
            try:
                return self._gradients(packs, divisor, heard)
            except BaseException:
                self._adapter.gradient.zero_() if before is None else self._adapter.gradient.copy_(before)
                raise

        loss = self._in_memory(gradients, [one.pack for one in packs])
        self.begun = True
        return LossSum(loss, sum(one.pack.label_weight for one in packs))

    def _gradients(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> float:
        if self._captured is not None and not self._recompute:
            return self._small(self._captured, packs, divisor, heard)
        parts = [AdaptedPack(_moved(one.pack, self._device), self._adapter.layers(one.key)) for one in self._fit(packs)]
        if not self._recompute:
            return keep(self._decoder, parts, divisor, heard)
        if self._lockstep:
            return recompute(self._decoder, parts, divisor, heard)
        loss, done = 0.0, 0
        for part in parts:  # one at a time: recompute keeps the input of every layer for all packs that it gets
            loss += recompute(self._decoder, [part], divisor, _after(done, heard))
            done += part.pack.row_tokens
        return loss

    def _small(self, captured: CapturedPasses, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> float:
        """As `keep`, with the passes of a small model."""
        total, done = torch.zeros((), device=self._device, dtype=torch.float64), 0
        for one in packs:
            seeds = self._adapter.seeds(one.key)
            total += captured.loss(captured.inputs(one.pack, seeds, divisor))
            done += one.pack.row_tokens
            heard(done)
        return float(total.item())

    def _fit(self, packs: Sequence[KeyedPack]) -> list[KeyedPack]:
        """The packs, or smaller ones with the same rows if memory ran out before."""
        if self._most_tokens is None:
            return list(packs)
        most = self._most_tokens
        return [
            KeyedPack(part, one.key if number == 0 else f"{one.key}/{number}")
            for one in packs
            for number, part in enumerate(smaller_packs(one.pack, most))
        ]

    def _in_memory(self, compute: Callable[[], float], packs: Sequence[Pack]) -> float:
        """The result of `compute`, which is called again with less memory as long as there is not enough."""
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError as error:
                if self._lockstep:
                    raise
                needed = str(error).partition(". GPU")[0]
            # Outside of the handler, because the exception keeps the tensors of the step alive.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._use_less(max(len(one.ids_T) for one in packs), longest_row(packs), needed)

    def _use_less(self, tokens: int, longest: int, needed: str) -> None:
        now = min(tokens, self._most_tokens or tokens)
        if self._captured is not None:
            self._captured = None
            self._say(f"out of GPU memory ({needed}): from here on, passes are not replayed as graphs")
        elif not self._recompute:
            self._recompute = True
            self._say(
                f"out of GPU memory in a pack of {now} tokens ({needed}): from here on, layers are recomputed in the "
                "backward pass, which takes 1.5 times the work"
            )
        elif now > longest:
            self._most_tokens = max(longest, now // 2)
            self._say(f"out of GPU memory ({needed}): from here on, packs have at most {self._most_tokens} tokens")
        else:
            raise OutOfMemory(
                f"out of GPU memory for one row of {longest} tokens ({needed})",
                "Free memory of the card (nvidia-smi lists its processes), lower curate.max_length, use a smaller "
                "base, or set train.device = 'cpu'",
            )

    def clip(self, most: float) -> float:
        norm = torch.linalg.vector_norm(self._adapter.gradient)
        self._adapter.gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return float(norm.item())

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        adapter = self._adapter
        torch._fused_adamw_(
            [adapter.values], [adapter.gradient], [self._first], [self._second], [], [self._steps.add_(1)],
            lr=learning_rate, beta1=_BETAS[0], beta2=_BETAS[1], weight_decay=self._config.weight_decay, eps=_EPS,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        adapter.gradient.zero_()
        adapter.refresh()
        self.begun = False

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        def loss() -> float:
            total, done, lora = 0.0, 0, self._adapter.layers()
            if self._lockstep:
                parts = [AdaptedPack(_moved(one, self._device), lora) for one in packs]
                return loss_only(self._decoder, parts, heard)
            for one in self._fit([KeyedPack(pack, "") for pack in packs]):
                part = AdaptedPack(_moved(one.pack, self._device), lora)
                total += loss_only(self._decoder, [part], _after(done, heard))
                done += one.pack.row_tokens
            return total

        return LossSum(self._in_memory(loss, packs), sum(one.label_weight for one in packs))

    def adapter(self) -> dict[str, Tensor]:
        host = self._adapter.values.to("cpu", copy=True)
        return {name: value.clone() for name, value in self._adapter.named(host).items()}

    def state(self) -> dict[str, Tensor]:
        flat, steps = {"adapter": self._adapter.values}, self._steps.item()
        if self.begun:
            flat["gradient"] = self._adapter.gradient
        if steps:
            flat |= {"optimizer/exp_avg": self._first, "optimizer/exp_avg_sq": self._second}
        tensors = {
            f"{kind}/{name}": value
            for kind, values in flat.items()
            for name, value in self._adapter.named(values.cpu()).items()
        }
        if steps:
            tensors |= {f"optimizer/step/{name}": torch.tensor(steps) for name in self._adapter.named(self._first)}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        adapter = self._adapter
        adapter.fill(adapter.values, under(tensors, "adapter/"))
        gradient, steps = under(tensors, "gradient/"), under(tensors, "optimizer/step/")
        self.begun = bool(gradient)
        adapter.gradient.zero_()
        if gradient:
            adapter.fill(adapter.gradient, gradient)
        self._steps.fill_(next(iter(steps.values()), torch.zeros(())).item())
        for flat, key in ((self._first, "exp_avg"), (self._second, "exp_avg_sq")):
            flat.zero_()
            if steps:
                adapter.fill(flat, under(tensors, f"optimizer/{key}/"))
        adapter.refresh()

    def memory_bytes(self) -> int:
        return int(torch.cuda.memory_allocated(self._device)) if self._device.type == "cuda" else 0

    def close(self) -> None:
        self._captured = None  # with the memory of its graphs
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _after(done: float, heard: Heard) -> Heard:
    """Tells of tokens that are done after those of earlier packs."""
    return lambda tokens: heard(done + tokens)


def _moved(pack: Pack, device: torch.device) -> Pack:
    """The pack with its tensors on the device."""
    return replace(
        pack,
        ids_T=moved(pack.ids_T, device),
        source_L=moved(pack.source_L, device),
        labels_L=moved(pack.labels_L, device),
        weights_L=moved(pack.weights_L, device),
    )
