"""Layers of which each device keeps a part are the layers, bit for bit, in whatever order they are accessed."""

from __future__ import annotations

import pytest
import torch

from journeyman.models.decoder import LayerWeights
from journeyman.models.gpu.sharded import ShardedLayers

UP_AND_DOWN = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]


class _Work:
    def wait(self) -> None: ...


def _layers(count: int = 5, dtype: torch.dtype = torch.bfloat16) -> list[LayerWeights]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"qkv_proj": (24, 40), "o_proj": (40, 17), "down_proj": (1, 3)}
    return [
        LayerWeights(
            {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()},
            bias={"qkv_proj": torch.randn(24, generator=generator)},
            attention_norm=torch.randn(40, generator=generator),
        )
        for _ in range(count)
    ]


def _sharded(layers: list[LayerWeights], devices: int, gathered: list[int]) -> ShardedLayers:
    """The layers on device 0; gathering takes the parts of all, and writes down of which layer."""
    others: list[ShardedLayers] = []

    def gather(whole: torch.Tensor, part: torch.Tensor) -> _Work:
        index = next(number for number, one in enumerate(others[0]._parts) if one.bytes is part)
        torch.cat([other._parts[index].bytes for other in others], out=whole)
        gathered.append(index)
        return _Work()

    others += [ShardedLayers(iter(layers), number, devices, gather) for number in range(devices)]
    return others[0]


@pytest.mark.parametrize("devices", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "order", [UP_AND_DOWN * 2, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 3], [3, 0, 4, 2, 2, 1], [4, 3, 2, 1, 0]]
)
def test_they_are_the_layers_bit_for_bit(devices: int, dtype: torch.dtype, order: list[int]) -> None:
    layers = _layers(dtype=dtype)
    sharded = _sharded(layers, devices, [])
    assert len(sharded) == len(layers)
    for index in order:
        made = sharded[index]
        assert made.linear.keys() == layers[index].linear.keys()
        assert all(torch.equal(made.linear[name], value) for name, value in layers[index].linear.items())
        assert torch.equal(made.bias["qkv_proj"], layers[index].bias["qkv_proj"])
        assert made.attention_norm is layers[index].attention_norm


def test_a_pass_up_and_down_gathers_each_layer_at_most_twice() -> None:
    gathered: list[int] = []
    sharded = _sharded(_layers(), 2, gathered)
    for _ in range(2):
        for index in UP_AND_DOWN:
            _ = sharded[index]
    assert gathered == [0, 1, 2, 3, 4, 2, 1, 0, 2, 3, 4, 2, 1, 0]


def test_the_next_layer_is_gathered_before_it_is_needed() -> None:
    gathered: list[int] = []
    sharded = _sharded(_layers(), 2, gathered)
    for index, begun in ((0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2, 3])):
        _ = sharded[index]
        assert gathered == begun


def test_a_device_keeps_its_part() -> None:
    layers = _layers()
    whole = sum(value.nbytes for value in layers[0].linear.values())
    parts = [ShardedLayers(layers, number, 4, lambda whole, part: _Work())._parts[0].bytes for number in range(4)]
    assert len({part.numel() for part in parts}) == 1
    assert sum(part.numel() for part in parts) < whole + 4 * 1024
