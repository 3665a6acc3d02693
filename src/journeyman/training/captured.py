"""Replays the forward and backward pass of small models as CUDA graphs.

A pass of a small model is thousands of kernels of a few microseconds, and Python takes longer to launch one than the
GPU to run it. A graph launches all of them at once, but only for tensors of the same sizes: so packs are padded to few
sizes. The first pack of a size is computed kernel by kernel, which also compiles what is missing, the second one is
captured, and from then on the graph is replayed. All three give the same bits, because they run the same kernels.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from journeyman.models.decoder import Decoder, LayerLora, Layout
from journeyman.models.gpu.layout import moved
from journeyman.training.batches import Pack

_LEAST = 128


@dataclass(frozen=True)
class Inputs:
    """What a pass reads, on the device.

    Attributes:
        weights_L: of the labels, divided by those of the whole step.
        seeds: of dropout; empty: no dropout.
    """

    ids_T: Tensor
    layout: Layout
    source_L: Tensor
    labels_L: Tensor
    weights_L: Tensor
    seeds: Tensor

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [*_tensors(self.layout), self.ids_T, self.source_L, self.labels_L, self.weights_L, self.seeds]


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    loss: Tensor


class CapturedPasses:
    """Computes the loss of packs and adds its gradients to the adapter's.

    Args:
        layers_of: seeds of dropout on the device (Inputs.seeds) → the adapter.
    """

    def __init__(self, decoder: Decoder, layers_of: Callable[[Tensor], Sequence[LayerLora]]) -> None:
        self._decoder, self._layers_of = decoder, layers_of
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        self._seen: set[tuple[Any, ...]] = set()
        self._pool: Any = None

    def inputs(self, pack: Pack, seeds: Tensor, divisor: float) -> Inputs:
        """The padded pack on the device."""
        pack, device = padded(pack), self._decoder.weights.norm.device
        ids_T, source_L, labels_L, weights_L, seeds = (
            moved(one, device) for one in (pack.ids_T, pack.source_L, pack.labels_L, pack.weights_L / divisor, seeds)
        )
        layout = self._decoder.layout(pack.lengths, self._decoder.embed(ids_T[:1]), pack.prefixes)
        return Inputs(ids_T, layout, source_L, labels_L, weights_L, seeds)

    def loss(self, inputs: Inputs) -> Tensor:
        """The loss, float32 on the device, valid until the next call."""
        sizes = tuple(tuple(one.shape) for one in inputs.tensors())
        if not inputs.ids_T.is_cuda or sizes not in self._seen or _other_kernels(inputs.layout):
            self._seen.add(sizes)
            return self._compute(inputs)
        if sizes not in self._captured:
            self._captured[sizes] = self._capture(inputs)
        found = self._captured[sizes]
        for static, given in zip(found.inputs.tensors(), inputs.tensors(), strict=True):
            static.copy_(given)
        found.graph.replay()
        return found.loss

    def _capture(self, inputs: Inputs) -> _Captured:
        torch.cuda.empty_cache()  # the graph has memory of its own
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with _no_collection(), torch.cuda.graph(graph, pool=self._pool):
            loss = self._compute(inputs)
        self._pool = self._pool or graph.pool()  # only one graph runs at a time, so that all can use the same memory
        return _Captured(graph, inputs, loss)

    def _compute(self, inputs: Inputs) -> Tensor:
        decoder, lora = self._decoder, self._layers_of(inputs.seeds)
        x_TD = decoder.embed(inputs.ids_T)
        hidden_LD = decoder.through_layers(x_TD, inputs.layout, lora, inputs.source_L)
        loss = decoder.label_loss(hidden_LD, decoder.weights.head_VD, inputs.labels_L, inputs.weights_L)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which could destroy graphs of an earlier engine: CUDA then ends the capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def padded(pack: Pack) -> Pack:
    """The pack after a segment of padding, and with labels of weight 0, up to the next size.

    Padding is 6 % of the tokens on average, and more of the labels, of which fewer sizes are worth it. Nothing depends
    on it, and its gradients are exactly 0. It comes first, because the segments that continue others are the last ones.
    """
    tokens, labels = len(pack.ids_T), len(pack.labels_L)
    more, more_labels = rounded_up(tokens, 8) - tokens, rounded_up(labels, 2) - labels
    if more:
        pack = replace(
            pack,
            ids_T=torch.cat([pack.ids_T.new_zeros(more), pack.ids_T]),
            lengths=[more, *pack.lengths],
            prefixes=[-1, *(one + 1 if one >= 0 else -1 for one in pack.prefixes)],
            source_L=pack.source_L + more,
        )
    # Positions that differ, because gradients of the same position are added one after the other.
    extra = torch.arange(more_labels) % (tokens + more)
    return replace(
        pack,
        source_L=torch.cat([pack.source_L, extra]),
        labels_L=torch.cat([pack.labels_L, pack.labels_L.new_zeros(more_labels)]),
        weights_L=torch.cat([pack.weights_L, pack.weights_L.new_zeros(more_labels)]),
    )


def size_class(pack: Pack) -> tuple[int, int, int]:
    """Packs of the same class are replayed by the same graph: tokens, labels, and 64 segments, rounded up."""
    made = padded(pack)
    return len(made.ids_T), len(made.labels_L), -(-len(made.lengths) // 64)


def rounded_up(count: int, sizes: int) -> int:
    """The next size: so many of them between a power of two and the next."""
    step = max(_LEAST, (1 << max(0, (count - 1).bit_length() - 1)) // sizes)
    return -(-count // step) * step


def _other_kernels(layout: Layout) -> bool:
    """Whether rows are computed by kernels whose launches depend on more than the sizes of tensors."""
    return bool(layout.packing.blocks is not None and layout.packing.blocks.long)


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in dataclasses and sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _tensors(one)]
    if hasattr(value, "__dataclass_fields__"):
        return [tensor for name in value.__dataclass_fields__ for tensor in _tensors(getattr(value, name))]
    return []
