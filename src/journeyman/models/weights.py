"""Loads the frozen weights of a decoder from a GGUF file, in the layout of `transformers`."""

from __future__ import annotations

import torch
from torch import Tensor

from journeyman.models.decoder import Decoder, LayerWeights, Weights
from journeyman.models.geometry import MODULES, Geometry, geometry_of
from journeyman.models.gguf_file import GgufFile

GGUF_MODULE_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
"""Name in `transformers` → name in GGUF, inside a block."""


def load_decoder(file: GgufFile, dtype: torch.dtype) -> Decoder:
    """The decoder of a GGUF file with all weights dequantized to `dtype`."""
    geometry = geometry_of(file)

    def read(name: str) -> Tensor:
        return torch.from_numpy(file.tensor(name)).to(dtype)

    embedding = read("token_embd.weight")
    weights = Weights(
        embedding_VD=embedding,
        layers=[_load_layer(file, geometry, index, dtype) for index in range(geometry.layers)],
        norm=read("output_norm.weight"),
        head_VD=embedding if geometry.tied_head else read("output.weight"),
    )
    return Decoder(geometry, weights)


def _load_layer(file: GgufFile, geometry: Geometry, index: int, dtype: torch.dtype) -> LayerWeights:
    def read(name: str) -> Tensor:
        return torch.from_numpy(file.tensor(f"blk.{index}.{name}")).to(dtype)

    linear, bias = {}, {}
    for module in MODULES:
        name = GGUF_MODULE_NAMES[module]
        linear[module] = to_half_split(read(f"{name}.weight"), module, geometry)
        if geometry.qkv_bias and module in ("q_proj", "k_proj", "v_proj"):
            bias[module] = to_half_split(read(f"{name}.bias"), module, geometry)
    return LayerWeights(
        attention_norm=read("attn_norm.weight"),
        ffn_norm=read("ffn_norm.weight"),
        linear=linear,
        bias=bias,
        q_norm=read("attn_q_norm.weight") if geometry.qk_norm else None,
        k_norm=read("attn_k_norm.weight") if geometry.qk_norm else None,
    )


def to_half_split(rows: Tensor, module: str, geometry: Geometry) -> Tensor:
    """Reorders the rows of q and k from GGUF's interleaved rotary pairs to halves; others pass unchanged."""
    heads = _rotary_heads(module, geometry)
    if heads == 0:
        return rows
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).contiguous()


def to_interleaved(rows: Tensor, module: str, geometry: Geometry) -> Tensor:
    """The inverse of `to_half_split`: what a GGUF adapter's B matrix needs."""
    heads = _rotary_heads(module, geometry)
    if heads == 0:
        return rows
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).contiguous()


def _rotary_heads(module: str, geometry: Geometry) -> int:
    if not geometry.rotates_pairs:
        return 0
    return {"q_proj": geometry.heads, "k_proj": geometry.kv_heads}.get(module, 0)
