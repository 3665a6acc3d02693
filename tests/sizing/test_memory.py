"""The estimate of a layer's memory, compared with the bytes that a layer of each family keeps or uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from journeyman.config import LoraConfig
from journeyman.models.causal_blocks import attend_in_blocks
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.families import FAMILIES
from journeyman.models.geometry import AlternateLayers, Geometry
from journeyman.sizing.memory import (
    TrainingSize,
    _capped_bytes,
    layer_bytes_per_token,
    peak_of,
    size_of_pack,
    training_bytes,
    training_parts,
)
from journeyman.training.lora import Adapter

_LLAMA = Geometry(
    architecture="llama", layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=512, context=4096,
    rope_theta=1e4, rms_eps=1e-6, tied_head=True,
)  # fmt: skip
_WINDOW = AlternateLayers((0,), 64, 1e4)
_DENSE = [name for name, family in FAMILIES.items() if family.mixture is None or not family.mixture.always]
GEOMETRIES = {name: replace(_LLAMA, architecture=name) for name in _DENSE} | {
    "gemma3 with a window": replace(_LLAMA, architecture="gemma3", alternate=_WINDOW),
    "gemma2 with a cap": replace(_LLAMA, architecture="gemma2", attention_cap=50.0),
    "gemma2 with both": replace(_LLAMA, architecture="gemma2", attention_cap=50.0, alternate=_WINDOW),
}


def _layer(geometry: Geometry, dtype: torch.dtype) -> LayerWeights:
    family, width = geometry.family, geometry.head_dim
    linear = {one: torch.zeros(geometry.module_shape(one), dtype=dtype) for one in geometry.modules}
    norms = {name: torch.ones(geometry.hidden, dtype=dtype) for name in family.norms}
    if family.qk_norm != "none":
        heads = (geometry.heads, geometry.kv_heads) if family.qk_norm == "together" else (1, 1)
        norms |= {name: torch.ones(n * width, dtype=dtype) for name, n in zip(("q_norm", "k_norm"), heads, strict=True)}
    return LayerWeights(linear, {}, **norms, alternate=geometry.is_alternate(0))


class _NoWeights:
    pass


def _kept(geometry: Geometry, dtype: torch.dtype, lengths: list[int], prefixes: list[int]) -> tuple[int, int]:
    """The bytes that a layer keeps of a pack, without the adapter in the compute type; the adapter's parameters."""
    decoder, layer = Decoder(geometry, _NoWeights()), _layer(geometry, dtype)  # type: ignore[arg-type]
    adapter = Adapter(geometry, LoraConfig(rank=8, alpha=16), 0)
    x = torch.zeros(sum(lengths), geometry.hidden, dtype=dtype, requires_grad=True)
    layout = decoder.layout(lengths, x, prefixes)
    frozen = [*layer.linear.values(), *(value for value in vars(layer).values() if isinstance(value, Tensor))]
    shared = {one.untyped_storage().data_ptr() for one in (*frozen, *layout.rotary, *(layout.alternate or ()))}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = decoder.block(x, layer, adapter.layers()[0], layout)
    assert out.requires_grad
    # The adapter in the compute type is counted apart: see training_parts.
    trainable = sum(one.numel() for one in adapter.parameters.values())
    return sum(kept.values()) - trainable // geometry.layers * dtype.itemsize, trainable


@pytest.mark.parametrize("lengths", [[256] * 4, [1000], [2200]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_layer_keeps_no_more_than_estimated(name: str, dtype: torch.dtype, lengths: list[int]) -> None:
    geometry = GEOMETRIES[name]
    found, trainable = _kept(geometry, dtype, lengths, [-1] * len(lengths))
    size = TrainingSize(geometry, trainable, dtype.itemsize, max(lengths))
    assert found <= layer_bytes_per_token(size) * sum(lengths)
    assert found > 0.8 * layer_bytes_per_token(size) * sum(lengths)


@pytest.mark.parametrize(
    ("lengths", "prefixes"),
    [
        ([350, 690, 100, 420], [-1] * 4), ([1100, 200, 900], [-1] * 3),
        ([600, 100, 300, 500, 200], [-1, 0, 0, 0, 0]), ([300, 200, 100, 400, 380, 90], [-1, -1, 0, 0, 0, 1]),
        ([1500, 300, 400, 1200], [-1, 0, 0, 0]), ([300, 1300, 1200, 1100], [-1, 0, 0, 0]),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_a_layer_keeps_of_a_pack_is_known_to_a_few_percent(
    dtype: torch.dtype, lengths: list[int], prefixes: list[int]
) -> None:
    found, trainable = _kept(_LLAMA, dtype, lengths, prefixes)
    size = size_of_pack(_LLAMA, trainable, dtype.itemsize, lengths, prefixes)
    assert found == pytest.approx(layer_bytes_per_token(size) * sum(lengths), rel=0.08)


def test_a_long_run_leaves_gaps_and_a_larger_validation_needs_more() -> None:
    size = _size(sizes=replace(_LLAMA, layers=30))
    few, some, many = (sum(training_parts(size, "keep", 512, 512, packs).values()) for packs in (2, 60, 10_000))
    assert few < some < many < few + training_parts(size, "keep", 512, 512)["activations"]
    streamed = [sum(training_parts(size, "stream", 512, 512, packs).values()) for packs in (2, 10_000)]
    assert streamed[0] == streamed[1]
    validated = [training_parts(size, "keep", 512, 512, 60, tokens)["passing"] for tokens in (0, 512, 2048)]
    assert validated[0] == validated[1] < validated[2]


@pytest.mark.parametrize("tokens", [(8, 256), (2, 1024), (1, 1800)])
def test_the_scores_of_capped_products_need_no_more_than_estimated(tokens: tuple[int, int]) -> None:
    """Counted as the bytes that torch allocates at the same time, in forward and backward pass."""
    segments, length = tokens
    geometry = replace(_LLAMA, attention_cap=50.0)
    q = torch.zeros(2 * segments, 2, length, 64, requires_grad=True)
    k, v = (torch.zeros(2 * segments, length, 64, requires_grad=True) for _ in range(2))
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        attend_in_blocks(q, k, v, cap=50.0).sum().backward()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    size = TrainingSize(geometry, 0, 4, length)
    values = 4 * 64 * segments * length * (4 + 4 + 2 + 2 + 4)  # outputs, and gradients of q, k, v and outputs
    assert (
        0.1 * _capped_bytes(size, geometry, segments * length)
        < peak - values
        < _capped_bytes(size, geometry, segments * length)
    )


def _size(**more: object) -> TrainingSize:
    values = {"sizes": _LLAMA, "trainable": 10**6, "compute_bytes": 2, "longest_row": 500}
    return TrainingSize(**{**values, **more})  # type: ignore[arg-type]


def test_the_parts_add_up_and_each_mode_needs_less() -> None:
    deep = replace(_LLAMA, layers=40)
    parts = {way: training_parts(_size(sizes=deep), way, 2048, 2048) for way in ("keep", "recompute", "stream")}
    sums = [sum(one.values()) for one in parts.values()]
    assert sums == sorted(sums, reverse=True) == [training_bytes(_size(sizes=deep), way, 2048, 2048) for way in parts]
    assert parts["keep"]["activations"] == 40 * parts["recompute"]["activations"]
    assert parts["keep"]["entering"] == 0 < parts["recompute"]["entering"]
    assert parts["stream"]["weights"] < parts["recompute"]["weights"]


def test_rows_of_different_lengths_are_padded() -> None:
    padded = layer_bytes_per_token(_size(padding=2.0)) - layer_bytes_per_token(_size())
    q, kv, scores = 256, 128, 4 * -(-500 * 8 // 14)
    assert padded == 2 * (q + 2 * kv + scores)
    assert layer_bytes_per_token(_size(padding=2.0, longest_row=1500)) == layer_bytes_per_token(_size(longest_row=1500))


def test_the_plan_says_no_less_than_was_measured() -> None:
    computed = training_parts(_size(), "keep", 2048, 2048)
    every = sum(computed.values())
    assert peak_of(computed, None, on_gpu=False) == every
    assert peak_of(computed, every // 2, on_gpu=False) == every, "longer runs leave gaps that few steps do not"
    for measured in (3 * 10**8, 10**10):
        assert max(every, measured) <= peak_of(computed, measured, on_gpu=False) <= max(every, 1.1 * measured)
        assert peak_of(computed, measured, on_gpu=True) == measured + computed["runtime"] + (20 << 20)
