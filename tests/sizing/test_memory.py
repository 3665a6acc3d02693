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
from journeyman.sizing.memory import TrainingSize, _capped_bytes, layer_bytes_per_token
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


@pytest.mark.parametrize("lengths", [[256] * 4, [1000], [2200]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_layer_keeps_no_more_than_estimated(name: str, dtype: torch.dtype, lengths: list[int]) -> None:
    geometry = GEOMETRIES[name]
    decoder, layer = Decoder(geometry, _NoWeights()), _layer(geometry, dtype)  # type: ignore[arg-type]
    adapter = Adapter(geometry, LoraConfig(rank=8, alpha=16), 0)
    x = torch.zeros(sum(lengths), geometry.hidden, dtype=dtype, requires_grad=True)
    layout = decoder.layout(lengths, x)
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
    size = TrainingSize(geometry, 0, dtype.itemsize, max(lengths))
    assert sum(kept.values()) <= layer_bytes_per_token(size) * sum(lengths)
    assert sum(kept.values()) > 0.3 * layer_bytes_per_token(size) * sum(lengths)
    assert out.requires_grad


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
