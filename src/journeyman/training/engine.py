"""What the training loop needs of whatever computes: the protocol between `loop.py` and a device.

The loop decides which packs a step takes, at which learning rate, when to validate, stop and save; an engine holds the
base and the adapter, makes gradients and steps. `cpu.CpuEngine` is the first. The protocol leaves room for

- a GPU: packs are tensors on the host with as many tokens as the plan allows, the engine moves them; everything that
  goes back to the loop is a number or a float32 tensor on the host, so checkpoints and exported adapters are the same
  files whatever made them. What an engine holds beside that (scales of fp8, say) goes into `state()` under names of
  its own, and every number format that changes results goes into `identity()`. A call returns a number, so a device
  is waited for once a call, not once a pack: `TrainingJob.group_tokens` says how much a call holds.
- several workers: losses and gradients are sums, divided by the label weight of the WHOLE step, which the loop knows
  before. So each worker can take some of the packs, and adding gives the step; dropout depends on a pack's key alone,
  not on who computes it. An engine of several workers spreads the packs, and adds gradients in `clip`, before the norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from journeyman.models.geometry import Geometry
from journeyman.training.batches import Pack

Heard = Callable[[float], None]
"""Hears how many tokens' worth of the work is done; it may raise to stop."""


@dataclass(frozen=True)
class KeyedPack:
    """A pack of an optimizer step.

    Attributes:
        key: names step and pack; dropout's random numbers are a function of it and the seed.
    """

    pack: Pack
    key: str


@dataclass(frozen=True)
class LossSum:
    """Loss of some packs, which can be added to that of others.

    Attributes:
        loss: cross-entropy in nats, times the weight of its label, summed.
        labels: the sum of the weights of those labels.
    """

    loss: float
    labels: float

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.loss + other.loss, self.labels + other.labels)

    @property
    def mean(self) -> float:
        """Nats for each label, of a loss that was not divided."""
        return self.loss / self.labels


class TrainingEngine(Protocol):
    """A base, an adapter and its optimizer on some device.

    A new engine starts as `lora.Adapter(geometry, config.lora, config.seed)` with no gradients and no moments.
    """

    @property
    def geometry(self) -> Geometry:
        """The base's shape."""

    def identity(self) -> str:
        """Names what changes the numbers: device, precision, kernels. Not what only changes speed or memory.

        A checkpoint is resumed only by an engine of the same identity.
        """

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        """Adds the gradients of the packs' summed loss, divided by `divisor`, to those of the step so far.

        Divided at once and not at the end: so gradients stay in the range of small number formats.

        Args:
            packs: at least one.
            divisor: the label weight of the whole step.
            heard: is told the row tokens done, of these packs: as often as that costs nothing, at least at the end.
                What it raises goes through, and then the gradients are those from before the call.

        Returns:
            The loss, divided by `divisor` as well, and the label weight of these packs, not divided.
        """

    def clip(self, most: float) -> float:
        """Scales the step's gradients so that their norm is at most `most`; returns the norm before."""

    def step(self, learning_rate: float) -> None:
        """The optimizer's step, after `clip`; then there are no gradients."""

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        """The packs' loss without dropout; changes nothing."""

    def adapter(self) -> dict[str, Tensor]:
        """A copy of the adapter under `peft`'s names, float32 on the host."""

    def state(self) -> dict[str, Tensor]:
        """Adapter, moments, and the gradients of a step that is not done, on the host; until the next call.

        Names begin with `adapter/`, `optimizer/`, `gradient/` or a prefix of the engine's own; never with `best/`.
        """

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what `state()` of an engine with the same identity gave.

        On a CPU the rest is then the same bit for bit; a device whose sums depend on timing can only promise the state.
        """

    def memory_bytes(self) -> int:
        """What it holds now, of the memory that is scarce for it."""

    def close(self) -> None:
        """Frees device memory and ends workers; nothing is called after it."""
