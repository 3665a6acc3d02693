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
from journeyman.models.families import FAMILIES, gguf_name
from journeyman.models.geometry import Geometry, tensor_shapes
from journeyman.models.gguf_alternate import alternate_layers_of, temperature_of
from journeyman.models.gguf_rotary import rotary_scaling_of

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"), "u32",
    ),
    **dict.fromkeys(
        ("rope.freq_base", "attention.layer_norm_rms_epsilon", "attention.scale", "attn_logit_softcapping",
         "final_logit_softcapping", "logit_scale", "residual_scale", "embedding_scale"), "f32",
    ),
}  # fmt: skip
"""Key, without the architecture's name → the type that llama.cpp requires."""

_ROPE_KEYS = ("dimension_count", "dimension_count_swa", "freq_base", "freq_base_swa", "scale_linear")
"""Keys below `rope.` that the engine reads, besides those of the scaling (models.gguf_rotary)."""
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
        InputError: the architecture is not one of FAMILIES, it needs operations that the decoder does not have,
            or tensors are missing, unknown, of the wrong shape or of a type that cannot be read.
    """
    metadata = file.metadata
    architecture = str(metadata.get("general.architecture"))
    family = FAMILIES.get(architecture)
    if family is None:
        raise InputError(
            f"{file.path}: architecture {plain(architecture, 40)!r} is not supported",
            f"Use a base model of one of these: {', '.join(FAMILIES)}",
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
            raise InputError(f"{file.path}: {name} is {plain(repr(value), 60)}", "Use a complete GGUF file")
        return value

    def number(key: str) -> float | None:
        """A number that the engine reads for some families only; None: it does not apply."""
        if key not in family.numbers:
            return None
        stated = metadata.get(f"{architecture}.{key}", family.numbers[key])
        return None if stated == 0 and not family.numbers[key] else float(read(key, family.numbers[key]))

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
        biases=tuple(one for one in family.biases if f"blk.0.{gguf_name(one)}.bias" in file.tensors),
    )
    rotated = int(read("rope.dimension_count", geometry.head_dim))
    if geometry.heads % geometry.kv_heads or rotated % 2 or rotated > geometry.head_dim:
        raise InputError(
            f"{file.path}: {geometry.heads} heads of {geometry.head_dim}, {geometry.kv_heads} of keys, "
            f"{rotated} rotated",
            "Use another base",
        )
    if rotated != geometry.head_dim and not family.partial_rotary:
        raise InputError(f"{file.path}: rope.dimension_count is not the head's {geometry.head_dim}", "Use another base")
    geometry = replace(
        geometry,
        rotary_dim=None if rotated == geometry.head_dim else rotated,
        embedding_scale=math.sqrt(hidden) if family.scales_embedding else number("embedding_scale") or 1.0,
        residual_scale=number("residual_scale") or 1.0,
        attention_scale=_attention_scale(geometry, number("attention.scale")),
        attention_cap=number("attn_logit_softcapping"),
        logit_scale=1.0 / (number("logit_scale") or 1.0),
        logit_cap=number("final_logit_softcapping"),
    )
    geometry = replace(geometry, rotary=rotary_scaling_of(file, geometry))
    geometry = replace(
        geometry, alternate=alternate_layers_of(file, geometry), temperature=temperature_of(file, geometry)
    )
    if family.heads_fill_hidden and heads * geometry.head_dim != hidden:
        raise InputError(
            f"{file.path}: {heads} heads of {geometry.head_dim} with a hidden size of {hidden}", "Use another base"
        )
    if read("attention.value_length", geometry.head_dim) != geometry.head_dim:
        raise InputError(
            f"{file.path}: attention.value_length is not the head's {geometry.head_dim}", "Use another base"
        )
    _check_tensors(file, geometry)
    return geometry


def _attention_scale(geometry: Geometry, stated: float | None) -> float | None:
    """What the engine multiplies queries with, if it is not head_dim ** -0.5; `stated`: attention.scale."""
    if stated is not None:
        return stated
    # Gemma 2 and 3 with 27 billion parameters scale by the hidden size per head (src/models/gemma2.cpp, gemma3.cpp).
    if (geometry.architecture, geometry.layers) in (("gemma2", 46), ("gemma3", 62)):
        return float((geometry.hidden // geometry.heads) ** -0.5)
    return None


def _check_tensors(file: GgufFile, geometry: Geometry) -> None:
    remedy = "Use a complete GGUF of a supported model"
    if geometry.layers > len(file.tensors):
        raise InputError(f"{file.path}: {geometry.layers} layers in {len(file.tensors)} tensors", remedy)
    wanted, head = tensor_shapes(geometry), geometry.family.head
    if head != "any" and geometry.tied_head != (head == "tied"):
        missing = "has" if head == "tied" else "lacks"
        raise InputError(f"{file.path}: {missing} an output matrix of its own (output.weight)", remedy)
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
    if file.metadata.get(f"{architecture}.attention.causal", True) is not True:
        raise InputError(f"{file.path}: tokens attend to later ones: a model for embeddings", "Use another base")
    prefix = f"{architecture}.rope."
    for key in file.metadata:
        name = key.removeprefix(prefix)
        if name != key and name not in _ROPE_KEYS and not name.startswith("scaling."):
            raise InputError(
                f"{file.path}: llama.cpp does not read {plain(key, 80)} and would serve the base without it",
                "Use another base, or convert it with llama.cpp's script",
            )
