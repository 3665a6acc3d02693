"""Frozen matrices that several GPUs share: each has a part of the bytes of every layer, and gets the rest when needed.

This is what ZeRO stage 3 (Rajbhandari et al., 2020, arXiv 1910.02054) does with parameters; as these are frozen, there
is nothing to send back. Two layers exist at a time: while one is computed, the next one is gathered. Layers are
accessed upwards, then downwards, and by all devices in the same order, because each has a part of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from journeyman.models.decoder import LayerWeights

_ALIGNED = 256
"""Bytes; matrices and parts begin at multiples of it, as torch's allocator does."""


class Work(Protocol):
    """A gathering under way."""

    def wait(self) -> Any:
        """Makes what the device does next wait until the bytes are there."""


Gather = Callable[[Tensor, Tensor], Work]
"""Begins to fill a tensor of bytes with the parts of all devices, of which the second tensor is this one's. It starts
when what this device was given so far is done."""


@dataclass(frozen=True)
class _Part:
    """This device's part of a layer's matrices, and what every device has of it.

    Attributes:
        bytes: the part.
        layout: module → where its matrix begins in the bytes of all parts, its shape and type.
        small: the layer without its matrices.
    """

    bytes: Tensor
    layout: Mapping[str, tuple[int, torch.Size, torch.dtype]]
    small: LayerWeights


class ShardedLayers(Sequence[LayerWeights]):
    """The layers of a base, of which a device keeps one part in `count`.

    A layer's matrices are valid for what the device is given before the next layer is accessed. What needs them later,
    as a backward pass through all layers does, must access them again. All devices must access the same layers in the
    same order.

    Args:
        layers: with their matrices on the device; only one at a time is kept.
        number, count: which of the parts are this device's, and of how many.
        gather: connects the devices.
    """

    def __init__(self, layers: Iterable[LayerWeights], number: int, count: int, gather: Gather) -> None:
        self._parts = [_part(layer, number, count) for layer in layers]
        self._gather = gather
        most = max(part.bytes.numel() for part in self._parts) * count
        device = self._parts[0].bytes.device
        self._buffers = [torch.empty(most, dtype=torch.uint8, device=device) for _ in range(2)]
        self._count = count
        self._there: list[tuple[int, Work | None]] = [(-1, None), (-1, None)]
        """For each buffer: the number of the layer in it, and the gathering that fills it, if that may not be over."""
        self._last = -1

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> LayerWeights:  # type: ignore[override]  # slices are never taken
        if not 0 <= index < len(self):
            raise IndexError(index)
        upwards = index < len(self) - 1 and (index > self._last or index == 0)
        beside = min(index + 1, len(self) - 1) if upwards else max(index - 1, 0)
        buffer = self._fetch(index, beside)
        layer = self._layer(index, buffer)
        self._fetch(beside, index)
        self._last = index
        return layer

    def _fetch(self, index: int, keep: int) -> int:
        """The buffer with a layer, which is gathered if it is in none, but not in place of the layer `keep`."""
        for buffer, (there, _) in enumerate(self._there):
            if there == index:
                return buffer
        buffer = next(number for number, (there, _) in enumerate(self._there) if there != keep)
        part = self._parts[index].bytes
        work = self._gather(self._buffers[buffer][: part.numel() * self._count], part)
        self._there[buffer] = index, work
        return buffer

    def _layer(self, index: int, buffer: int) -> LayerWeights:
        _, work = self._there[buffer]
        if work is not None:
            work.wait()
            self._there[buffer] = index, None
        part, whole = self._parts[index], self._buffers[buffer]
        linear = {
            module: whole[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for module, (start, shape, dtype) in part.layout.items()
        }
        return replace(part.small, linear=linear)


def _part(layer: LayerWeights, number: int, count: int) -> _Part:
    layout: dict[str, tuple[int, torch.Size, torch.dtype]] = {}
    size = 0
    for module, weight in layer.linear.items():
        assert isinstance(weight, Tensor), "only matrices in the compute type are shared among devices"
        layout[module] = size, weight.shape, weight.dtype
        size += -(-weight.nbytes // _ALIGNED) * _ALIGNED
    each = -(-size // (count * _ALIGNED)) * _ALIGNED
    part = _overlap(layer.linear, layout, each * number, each)
    return _Part(part, layout, replace(layer, linear={}))


def _overlap(
    linear: Mapping[str, Tensor], layout: Mapping[str, tuple[int, torch.Size, torch.dtype]], start: int, size: int
) -> Tensor:
    """The bytes from `start` of what the matrices would be one after the other, zero where there is none."""
    device = next(iter(linear.values())).device
    found = torch.zeros(size, dtype=torch.uint8, device=device)
    for module, weight in linear.items():
        begin = layout[module][0]
        content = weight.contiguous().view(-1).view(torch.uint8)
        first, last = max(start, begin), min(start + size, begin + content.numel())
        if first < last:
            found[first - start : last - start] = content[first - begin : last - begin]
    return found
