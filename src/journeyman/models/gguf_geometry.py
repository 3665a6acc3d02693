"""Reads the shape of a decoder from a GGUF header, and verifies that the file contains exactly its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.geometry import ARCHITECTURES, Geometry, tensor_shapes
from journeyman.models.gguf_rotary import rotary_scaling_of

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"), "u32",
    ),
    "rope.freq_base": "f32",
    "attention.layer_norm_rms_epsilon": "f32",
}  # fmt: skip
"""Key, without the architecture's name → the type that llama.cpp requires."""


_OTHER_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"), "str"),
    **dict.fromkeys(("tokenizer.ggml.tokens", "tokenizer.ggml.merges"), "[str]"),
    **dict.fromkeys((f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "unknown", "padding", "eot")), "u32"),
    **dict.fromkeys((f"tokenizer.ggml.add_{name}" for name in ("bos_token", "eos_token", "space_prefix")), "bool"),
    **dict.fromkeys(("general.file_type", "general.quantization_version"), "u32"),
    "tokenizer.ggml.token_type": "[i32]",
}


def geometry_of(file: GgufFile) -> Geometry:
    """Reads the geometry from a GGUF header, and verifies that the file contains exactly such a decoder's tensors.

    Raises:
        InputError: the architecture is not one of ARCHITECTURES, it needs operations that the decoder does not have,
            or tensors are missing, unknown, of the wrong shape or of a type that cannot be read.
    """
    metadata = file.metadata
    architecture = str(metadata.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{file.path}: architecture {architecture!r} is not supported",
            f"Use a base model of one of these: {', '.join(ARCHITECTURES)}",
        )
    _refuse_unsupported(file, architecture)
    for key, kind in _OTHER_KINDS.items():
        if file.kinds.get(key, kind) != kind:
            raise InputError(f"{file.path}: {key} is of type {file.kinds[key]}, not {kind}", "Use another GGUF file")

    def read(key: str, default: float | None = None) -> float:
        name = f"{architecture}.{key}"
        value = metadata.get(name, default)
        right_kind = file.kinds.get(name, _KINDS[key]) == _KINDS[key]
        if not isinstance(value, int | float) or not 0 < value < math.inf or not right_kind:
            raise InputError(f"{file.path}: {name} is {value!r}", "Use a complete GGUF file")
        return value

    hidden, heads = int(read("embedding_length")), int(read("attention.head_count"))
    geometry = Geometry(
        architecture=architecture,
        layers=int(read("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=int(read("attention.head_count_kv", heads)),
        head_dim=int(read("attention.key_length", hidden // heads)),
        ffn=int(read("feed_forward_length")),
        vocab=file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0,
        context=int(read("context_length")),
        rope_theta=float(read("rope.freq_base", 10000.0)),
        rms_eps=float(read("attention.layer_norm_rms_epsilon")),
        tied_head="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
    )
    geometry = replace(geometry, rotary=rotary_scaling_of(file, geometry))
    for key in ("rope.dimension_count", "attention.value_length"):
        if read(key, geometry.head_dim) != geometry.head_dim:
            raise InputError(f"{file.path}: {key} is not the head's {geometry.head_dim}", "Use another base")
    if geometry.heads % geometry.kv_heads or geometry.head_dim % 2:
        raise InputError(
            f"{file.path}: {geometry.heads} heads of {geometry.head_dim}, {geometry.kv_heads} of keys",
            "Use another base",
        )
    _check_tensors(file, geometry)
    return geometry


def _check_tensors(file: GgufFile, geometry: Geometry) -> None:
    remedy = "Use a complete GGUF of a supported model"
    if geometry.layers > len(file.tensors):
        raise InputError(f"{file.path}: {geometry.layers} layers in {len(file.tensors)} tensors", remedy)
    wanted = tensor_shapes(geometry)
    for name, shape in wanted.items():
        found = file.info(name)
        if found.shape != shape:
            raise InputError(f"{file.path}: tensor {name!r} has the shape {found.shape}, not {shape}", remedy)
        if not _can_dequantize(found.kind):
            raise InputError(f"{file.path}: tensor {name!r} has type {found.kind.name}, which cannot be read", remedy)
    unknown = next((name for name in file.tensors if name not in wanted), None)
    if unknown is not None:
        raise InputError(f"{file.path}: tensor {plain(unknown, 80)!r} is unknown to the decoder", remedy)
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) != geometry.vocab:
        raise InputError(f"{file.path}: {len(tokens)} tokens, but embeddings of {geometry.vocab}", remedy)


@cache
def _can_dequantize(kind: GGMLQuantizationType) -> bool:
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _refuse_unsupported(file: GgufFile, architecture: str) -> None:
    if file.metadata.get(f"{architecture}.expert_count", 0):
        raise InputError(f"{file.path}: mixtures of experts are not supported", "Use a dense base model")
