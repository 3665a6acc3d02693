"""Reads the shape of a decoder from a GGUF header, and verifies that the file contains exactly its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.families import FAMILIES, gguf_name
from journeyman.models.geometry import Geometry, tensor_shapes
from journeyman.models.gguf_alternate import alternate_layers_of, temperature_of, unserved_window_of
from journeyman.models.gguf_experts import experts_of
from journeyman.models.gguf_keys import refuse_unknown_keys
from journeyman.models.gguf_rotary import rotary_scaling_of

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
         "expert_feed_forward_length"), "u32",
    ),
    **dict.fromkeys(
        ("rope.freq_base", "attention.layer_norm_rms_epsilon", "attention.scale", "attn_logit_softcapping",
         "final_logit_softcapping", "logit_scale", "residual_scale", "embedding_scale"), "f32",
    ),
}  # fmt: skip
"""Key, without the architecture's name → the type that llama.cpp requires."""
_OF_LAYERS = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
"""Keys that may be lists with a number for each layer, which all have to be the same here."""

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
            "Set base.model to the Hugging Face folder of this model, which transformers may train, or to a GGUF file "
            f"of one of these: {', '.join(FAMILIES)}",
        )
    refuse_unknown_keys(file, architecture, family)
    experts = experts_of(file, architecture)
    mixture = family.mixture if experts is not None else None
    ffn_key = mixture.width if mixture is not None else "feed_forward_length"
    with_biases = mixture is not None and mixture.biases
    for key, kind in _OTHER_KINDS.items():
        if file.kinds.get(key, kind) != kind:
            raise InputError(f"{file.path}: {key} is of type {file.kinds[key]}, not {kind}", "Use another GGUF file")

    def read(key: str, default: float | None = None) -> float:
        name = f"{architecture}.{key}"
        value, kind = metadata.get(name, default), file.kinds.get(name, _KINDS[key])
        if key in _OF_LAYERS and kind in ("[u32]", "[i32]"):
            value, kind = _same_in_all_layers(file, name, value), "u32"
        if not isinstance(value, int | float) or not 0 < value < math.inf or kind != _KINDS[key]:
            raise InputError(f"{file.path}: {name} is {plain(repr(value), 40)}", "Use a complete GGUF file")
        return value

    def number(key: str) -> float | None:
        """A number that the engine reads for some families only; None: it does not apply."""
        if key not in family.numbers:
            return None
        default = family.numbers[key]
        stated = metadata.get(f"{architecture}.{key}", default)
        # A divisor or limit of 0 would be applied: only where 0 is the default does it mean "not applied".
        return None if stated == 0 and default == 0 else float(read(key, default))

    hidden, heads = int(read("embedding_length")), int(read("attention.head_count"))
    geometry = Geometry(
        architecture=architecture,
        layers=int(read("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=int(read("attention.head_count_kv", heads)),
        head_dim=int(read("attention.key_length", hidden // heads)),
        ffn=int(read(ffn_key)),
        vocab=file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0,
        context=int(read("context_length")),
        rope_theta=float(read("rope.freq_base", 10000.0)),
        rms_eps=float(read("attention.layer_norm_rms_epsilon")),
        tied_head="output.weight" not in file.tensors,
        biases=tuple(one for one in family.biases if with_biases or f"blk.0.{gguf_name(one)}.bias" in file.tensors),
        experts=experts,
    )
    rotated = int(read("rope.dimension_count", geometry.head_dim))
    if heads > hidden or heads % geometry.kv_heads or rotated % 2 or rotated > geometry.head_dim:
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
        unserved_window=unserved_window_of(file, geometry),
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


def _same_in_all_layers(file: GgufFile, key: str, values: Any) -> Any:
    """The number of a list with one for each layer: layers of different sizes are refused."""
    layers = file.metadata.get(f"{file.metadata.get('general.architecture')}.block_count")
    if len(values) != layers or len(set(values)) != 1:
        raise InputError(
            f"{file.path}: {key} differs between layers: {plain(str(values), 40)}",
            "Use a base whose layers have the same sizes",
        )
    return values[0]


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
    split = "attn_q" if geometry.family.fused else "attn_qkv"
    if f"blk.0.{split}.weight" in file.tensors:
        how = "separately" if geometry.family.fused else "as one matrix"
        raise InputError(
            f"{file.path}: q, k and v are stored {how} (blk.0.{split}.weight), which is not supported for "
            f"{geometry.architecture}",
            "Convert the model with llama.cpp's script, without other options",
        )
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
