"""The names of a decoder's tensors in transformers.

llama.cpp's script maps many more names (gguf.TensorNameMap), including some that transformers does not load in these
families; here each tensor has the one name that transformers gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from journeyman.models.families import Family, gguf_name

_ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}  # fmt: skip
_PICTURES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
TEXT_MODEL = "model.language_model"
"""Where the model of texts is in one of texts and pictures."""
_IN_CACHE = re.compile(r"models--([^-/][^/]*?)--([^/]+)/snapshots/([0-9a-f]{40})")
EMBEDDING, HEAD = _OUTSIDE["token_embd.weight"], _OUTSIDE["output.weight"]


def hf_name(name: str, family: Family) -> str:
    """The name in transformers of a tensor that has this one in GGUF."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_in_layer(family)[part]}.{kind}"


def _in_layer(family: Family) -> dict[str, str]:
    """Name inside a block in GGUF → in transformers."""
    found = {
        gguf_name(module): f"{'self_attn' if module in _ATTENTION else 'mlp'}.{module}"
        for module in family.dense_modules
    }
    if family.mixture is not None:
        of_each, stacked = family.mixture.place_of_each, family.mixture.place.rsplit(".", 1)[0]
        router = f"{stacked}.router.layer" if of_each is None else f"{of_each.rsplit('.', 1)[0]}.gate"
        found["ffn_gate_inp"] = router
    normalizes_output = "post_attention_norm" in family.norms.values()
    return found | {
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm" if normalizes_output else "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
    }


def without_pictures(names: Iterable[str]) -> dict[str, str]:
    """The tensors of a model of texts and pictures that belong to texts: name in a model of texts alone → own name."""
    return {name.replace("language_model.", "", 1): name for name in names if not name.startswith(_PICTURES)}


def is_left_out(name: str) -> bool:
    """True for what old versions of transformers stored although it follows from config.json."""
    return name.endswith(".rotary_emb.inv_freq")


def name_on_hub(folder: Path) -> tuple[str, str | None]:
    """(repo, commit) of a folder in a cache with Hugging Face's layout; otherwise (the folder, None)."""
    found = _IN_CACHE.fullmatch("/".join(folder.parts[-3:]))
    return (f"{found[1]}/{found[2]}", found[3]) if found else (str(folder), None)
