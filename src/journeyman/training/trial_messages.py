"""What the process that plans and the process that tries steps (trial_child) tell each other, as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict

from journeyman.config import TrainConfig
from journeyman.models.geometry import Factors
from journeyman.sizing.memory import MemoryWay
from journeyman.training.batches import Pack
from journeyman.training.devices import Gpu

OUT_OF_MEMORY = 64
"""The exit code of a trial that ran out of memory."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialPack(_Message):
    """A batches.Pack."""

    ids: list[int]
    lengths: list[int]
    prefixes: list[int]
    source: list[int]
    labels: list[int]
    weights: list[float]
    row_tokens: int

    @classmethod
    def of(cls, pack: Pack) -> TrialPack:
        return cls(
            ids=pack.ids_T.tolist(), lengths=pack.lengths, prefixes=pack.prefixes, source=pack.source_L.tolist(),
            labels=pack.labels_L.tolist(), weights=pack.weights_L.tolist(), row_tokens=pack.row_tokens,
        )  # fmt: skip

    def pack(self) -> Pack:
        tensors = (torch.tensor(one) for one in (self.ids, self.source, self.labels, self.weights))
        ids_T, source_L, labels_L, weights_L = tensors
        return Pack(ids_T, self.lengths, self.prefixes, source_L, labels_L, weights_L, self.row_tokens)


class TrialGroup(_Message):
    """Packs that the engine gets at once. `size`: operations, by which one can tell how long it takes."""

    parts: list[TrialPack]
    size: float

    def packs(self) -> list[Pack]:
        return [one.pack() for one in self.parts]


class TrialGpu(_Message):
    """A devices.Gpu."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]

    @classmethod
    def of(cls, gpu: Gpu) -> TrialGpu:
        return cls(
            index=gpu.index, name=gpu.name, total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes,
            capability=gpu.capability,
        )  # fmt: skip


class Trial(_Message):
    """Steps to try.

    Attributes:
        groups: of training, in the order of their importance.
        validation: groups of validation.
        budget_s: seconds for loading the base and all steps.
        adapter_folder: where an adapter is written, as the stage `train` would, to measure the serving engine with; "":
            none.
    """

    base: str
    config: TrainConfig
    memory: MemoryWay
    factors: Factors | None
    gpus: Sequence[TrialGpu]
    sharded: bool
    groups: list[TrialGroup]
    validation: list[TrialGroup]
    budget_s: float
    adapter_folder: str = ""


class Measured(_Message):
    """What was measured.

    Attributes:
        groups, validation: the seconds of all repetitions of each group; empty: not measured.
        updates: seconds of each clipped step of the optimizer.
        warm_ups: how many of the first repetitions of each group are slower than later ones.
        load_s, checkpoint_s: to load the base, and to save a checkpoint.
        measured_peak_bytes: the most memory, of the kind that is scarce, as Backend.peak_memory_bytes says; None: not
            known.
        said: what the engine reported, such as less memory than planned.
    """

    groups: list[list[float]]
    validation: list[list[float]]
    updates: list[float]
    warm_ups: list[int]
    measured_s: float
    load_s: float = 0.0
    checkpoint_s: float = 0.0
    measured_peak_bytes: int | None = None
    said: list[str] = []
