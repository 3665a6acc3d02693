"""The protocol between the training loop and the device that computes.

The loop decides which packs are in a step, the learning rate, and when to validate, stop and save. An engine has the
base and the adapter, computes gradients and takes steps. `cpu.CpuEngine` is the first one;
`transformers_engine.TransformersEngine` trains the architectures that our own decoder does not compute. The protocol
allows for

- a GPU: packs are tensors on the host with as many tokens as the plan allows, and the engine moves them. Everything
  that returns to the loop is a number or a float32 tensor on the host, so checkpoints and exported adapters have the
  same format for all engines. Additional state of an engine (scales of fp8, say) goes into `state()` under its own
  names, and every number format that changes results goes into `identity()`. The loop waits for the device once per
  call, not once per pack: `TrainingJob.group_tokens` sets the size of a call.
- several workers: losses and gradients are sums, divided by the label weight of the WHOLE step, which the loop knows
  in advance. So each worker can take some of the packs, and their sum is the step; dropout depends only on a pack's
  key, not on the worker. `data_parallel.DataParallelEngine` distributes the packs, and adds gradients in `clip`,
  before the norm; `mirror.Leader` makes the engine that the loop has, whose calls all workers make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from journeyman.errors import WorkerDied
from journeyman.models.sizes import Sizes
from journeyman.training.batches import Pack

Heard = Callable[[float], None]
"""Called with the number of tokens that are done; it may raise to stop the work."""


@dataclass(frozen=True)
class KeyedPack:
    """A pack of an optimizer step.

    Attributes:
        key: identifies step and pack; dropout's random numbers depend on it and the seed.
    """

    pack: Pack
    key: str


@dataclass(frozen=True)
class LossSum:
    """The loss of some packs, which can be added to that of others.

    Attributes:
        loss: the sum of the labels' cross-entropy in nats, each multiplied by the label's weight.
        labels: the sum of the labels' weights.
    """

    loss: float
    labels: float

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.loss + other.loss, self.labels + other.labels)

    @property
    def mean(self) -> float:
        """Nats per label, for a loss that was not divided."""
        return self.loss / self.labels


class WorkersLost(WorkerDied):
    """Some of the machines that train are gone; the backend can make another engine on those that are left."""


class TrainingEngine(Protocol):
    """A base, an adapter and its optimizer on some device.

    A new engine starts with an untrained adapter, drawn as lora.Adapter does from `config.seed`, and with no gradients
    and no moments.
    """

    @property
    def sizes(self) -> Sizes:
        """The base's sizes."""

    def identity(self) -> str:
        """Names what changes the numbers (device, precision, kernels), but not what only changes speed or memory.

        Only an engine with the same identity resumes a checkpoint.
        """

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        """Adds the gradients of the packs' summed loss, divided by `divisor`, to those of the step so far.

        The loss is divided here and not at the end, so that gradients stay in the range of small number formats.

        Args:
            packs: at least one.
            divisor: the label weight of the whole step.
            heard: is called with the number of these packs' row tokens that are done, at least at the end. If it
                raises, the exception propagates and the gradients are as before the call.

        Returns:
            The loss, also divided by `divisor`, and the label weight of these packs, not divided.
        """

    def clip(self, most: float) -> float:
        """Scales the step's gradients so that their norm is at most `most`; returns the norm before."""

    def step(self, learning_rate: float) -> None:
        """Takes the optimizer's step, after `clip`, and clears the gradients."""

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        """The packs' loss without dropout; changes nothing."""

    def adapter(self) -> dict[str, Tensor]:
        """A copy of the adapter under `peft`'s names, float32 on the host."""

    def state(self) -> dict[str, Tensor]:
        """Adapter, moments, and the gradients of an unfinished step, on the host; valid until the next call.

        Names begin with `adapter/`, `optimizer/`, `gradient/` or the engine's own prefix, never with `best/`.
        """

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state()` of an engine with the same identity returned.

        On a CPU, training then continues bit-identically; a device whose sums depend on timing can only restore the
        state exactly.
        """

    def memory_bytes(self) -> int:
        """The memory in use now, of the kind that is scarce for this engine."""

    def close(self) -> None:
        """Frees device memory and ends workers; no method is called afterwards."""
