"""Finds the nearest configurations in which training fits into memory, with their memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from journeyman.config import TrainConfig
from journeyman.models.known import smaller_bases
from journeyman.reasons import Reason
from journeyman.reasons import fitting as reasons
from journeyman.sizing.fitting import Change, Dimension, Option, Severity, nearest
from journeyman.sizing.memory_choice import DoesNotFit, MemoryChoice
from journeyman.sizing.parameters import lora_parameters
from journeyman.training.devices import AUTO, CPU, CUDA, Gpu, survey
from journeyman.training.hardware import compute_dtype, gpu_dtype, gpu_rates, matrix_gflops
from journeyman.training.placement import Placement, Workload, memory_on_gpus, memory_on_processor, trains_on_gpus

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_PACKS = (8192, 4096, 2048, 1024, 512, 256, 128, 64)
_LENGTHS, _UNIT = (0.75, 0.5, 0.375, 0.25), 16
_MOST_DROPPED = 0.5
_LEAST_RANK = 4


@dataclass(frozen=True)
class Rows:
    """The training rows.

    Attributes:
        lengths: tokens of each.
        cuts: those that are too long are cut, and not dropped.
    """

    lengths: Sequence[int]
    cuts: bool = False


@dataclass(frozen=True)
class Fitting:
    """A configuration that fits. `seconds`: estimated time of training."""

    change: Change
    memory: MemoryChoice
    seconds: float


class Fitter:
    """Tries other settings for training that does not fit.

    Args:
        name: of the base, as in base.model.
        steps: of all epochs.
    """

    def __init__(
        self, work: Workload, train: TrainConfig, placed: Placement, rows: Rows, name: str, steps: int
    ) -> None:
        assert placed.misfit is not None
        self._work, self._train, self._placed, self._rows, self._name = work, train, placed, rows, name
        self._steps, self._rates = steps, {(bool(placed.gpus), placed.dtype): (placed.gflops, placed.bandwidth)}
        self._known: dict[str, Placement | None] = {}

    def found(self) -> list[Fitting]:
        """The nearest configurations, the smallest change first."""
        dimensions = [Dimension(severity, list(options)) for severity, options in self._dimensions()]
        changes = nearest(dimensions, lambda options: self._placed_with(options) is not None)
        return [self._measured(change) for change in changes]

    def _dimensions(self) -> Iterator[tuple[Severity, Iterator[Option]]]:
        yield Severity.NOTHING, self._modes()
        yield Severity.NOTHING, self._packs()
        yield Severity.NOTHING, self._more_gpus()
        yield Severity.ROUNDING, self._devices()
        yield Severity.ROUNDING, self._precisions()
        yield Severity.LESS, self._ranks()
        yield Severity.LESS, self._targets()
        yield Severity.FEWER_ROWS, self._lengths()
        yield Severity.OTHER_MODEL, self._bases()

    def _modes(self) -> Iterator[Option]:
        if self._train.memory != AUTO:
            ways = {"keep": "recompute", "recompute": "stream"}
            if way := ways.get(self._train.memory):
                yield _train_option(reasons.OtherMemoryMode(way), memory=AUTO)

    def _packs(self) -> Iterator[Option]:
        assert self._placed.misfit is not None
        for tokens in _PACKS:
            if tokens < self._placed.misfit.least.pack_tokens:
                yield _train_option(reasons.SmallerPacks(), pack_tokens=tokens)

    def _more_gpus(self) -> Iterator[Option]:
        for count in range(len(self._placed.gpus) + 1, len(self._cards) + 1 if self._placed.gpus else 0):
            yield _train_option(reasons.MoreGpus(count), gpus=count)

    def _devices(self) -> Iterator[Option]:
        if self._placed.gpus:
            yield _train_option(reasons.OtherDevice("the processor"), device=CPU, gpus=1)
        elif self._train.device == CPU and self._cards and trains_on_gpus(self._work.sizes):
            yield _train_option(reasons.OtherDevice(self._cards[0].line()), device=CUDA)

    def _precisions(self) -> Iterator[Option]:
        if self._placed.dtype == torch.float32:
            yield _train_option(reasons.Bfloat16Rounds(), precision="bfloat16")

    def _ranks(self) -> Iterator[Option]:
        lora = self._train.lora
        rank = lora.rank // 2
        while rank >= _LEAST_RANK:
            alpha = lora.alpha * rank / lora.rank  # the scale of the update stays
            yield Option({"train.lora.rank": rank, "train.lora.alpha": alpha}, reasons.LowerRank(rank / lora.rank))
            rank //= 2

    def _targets(self) -> Iterator[Option]:
        lora, sizes = self._train.lora, self._work.sizes
        left = [one for one in lora.targets if one in _ATTENTION]
        if left and len(left) < len(lora.targets):
            fewer = lora_parameters(sizes, lora.rank, left)
            if 0 < fewer < self._work.trainable:
                yield Option({"train.lora.targets": left}, reasons.AttentionTargets(fewer / self._work.trainable))

    def _lengths(self) -> Iterator[Option]:
        for share in _LENGTHS:
            most = int(share * self._work.longest_row) // _UNIT * _UNIT
            over = sum(one > most for one in self._rows.lengths)
            if most >= _UNIT and (self._rows.cuts or over <= _MOST_DROPPED * len(self._rows.lengths)):
                cost = reasons.ShorterRows(most, over, len(self._rows.lengths), self._rows.cuts)
                yield Option({"curate.max_length": most}, cost)

    def _bases(self) -> Iterator[Option]:
        for base, name in smaller_bases(self._name, self._work.sizes.parameters):
            cost = reasons.SmallerBase(base.name, base.geometry.parameters / 1e9)
            yield Option({"base.model": name} if name else {}, cost, base.geometry)

    @cached_property
    def _cards(self) -> Sequence[Gpu]:
        """The GPUs that can be used."""
        asked = self._train
        if asked.device == CPU and not trains_on_gpus(self._work.sizes):
            return ()
        return [one for one in survey().gpus if one.bfloat16 or asked.precision == "float32"]

    def _with(self, options: Sequence[Option]) -> tuple[Workload, TrainConfig]:
        """The workload and the settings with these options."""
        changed = {key: value for one in options for key, value in one.settings.items()}
        sizes = next((one.sizes for one in options if one.sizes is not None), self._work.sizes)
        lora = self._train.lora.model_copy(update=_below("train.lora.", changed))
        train = self._train.model_copy(update={**_below("train.", changed), "lora": lora})
        most = min(self._work.longest_row, changed.get("curate.max_length", self._work.longest_row))
        kept = self._tokens(most) / max(1, self._tokens(self._work.longest_row))
        work = replace(
            self._work,
            sizes=sizes,
            trainable=lora_parameters(sizes, lora.rank, lora.targets),
            longest_row=most,
            step_tokens=max(1, round(self._work.step_tokens * kept)),
            stored_bytes=self._work.stored_bytes if sizes is self._work.sizes else 0,
        )
        return work, train

    def _tokens(self, most: int) -> int:
        """Of the training rows, once, with this limit for a row."""
        if self._rows.cuts:
            return sum(min(one, most) for one in self._rows.lengths)
        return sum(one for one in self._rows.lengths if one <= most)

    def _placed_with(self, options: Sequence[Option]) -> Placement | None:
        """Where it is trained with these options; None: it does not fit there."""
        key = repr([dict(one.settings) or one.cost for one in options])
        if key not in self._known:
            try:
                self._known[key] = self._try(*self._with(options))
            except DoesNotFit:
                self._known[key] = None
        return self._known[key]

    def _try(self, work: Workload, train: TrainConfig) -> Placement:
        """As placement.place does, without measuring."""
        if train.device != CPU and self._cards and trains_on_gpus(work.sizes):
            first = list(self._placed.gpus) or list(self._cards[:1])
            others = [one for one in self._cards if one not in first]
            gpus = [*first, *others][: train.gpus]
            try:
                memory, sharded = memory_on_gpus(work, train, gpus)
                return Placement(gpus, gpu_dtype(train.precision), 0.0, memory, sharded=sharded)
            except DoesNotFit:
                if train.device != AUTO:
                    raise
        dtype = compute_dtype(train.precision)
        return Placement((), dtype, 0.0, memory_on_processor(work, dtype.itemsize, train))

    def _measured(self, change: Change) -> Fitting:
        placed = self._placed_with(change.options)
        assert placed is not None
        kind = bool(placed.gpus), placed.dtype
        if kind not in self._rates:
            device = placed.gpu.device if placed.gpu is not None else None
            self._rates[kind] = (
                (matrix_gflops(placed.dtype), 0.0) if device is None else gpu_rates(placed.dtype, device)
            )
        gflops, bandwidth = self._rates[kind]
        placed = replace(placed, gflops=gflops, bandwidth=bandwidth)
        work, train = self._with(change.options)
        tokens = self._tokens(work.longest_row) * train.epochs
        return Fitting(change, placed.memory, placed.seconds(work, train, tokens, self._steps))


def _train_option(cost: Reason, **values: Any) -> Option:
    return Option({f"train.{key}": value for key, value in values.items()}, cost)


def _below(prefix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a section, without those of sections in it."""
    inner = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    return {key: value for key, value in inner.items() if "." not in key}
