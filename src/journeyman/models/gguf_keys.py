"""Refuses keys of a GGUF header that would change the computation and that the decoder does not read.

Source: ggml-org/llama.cpp, src/llama-arch.cpp (names), src/llama-model.cpp and src/models/*.cpp (load_hparams,
load_arch_hparams). A key that only other families read is refused as well: llama.cpp would ignore it here, and serve
another model than the one that the file describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gguf import ExpertGatingFuncType

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.families import Family

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_READ = frozenset({
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "attention.sliding_window", "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "expert_count",
    "expert_used_count", "expert_group_count",
})  # fmt: skip
_OF_WINDOWS = frozenset({
    "attention.sliding_window_pattern", "attention.key_length_swa", "attention.value_length_swa", "rope.freq_base_swa",
    "rope.dimension_count_swa",
})  # fmt: skip
_WITHOUT_EFFECT = frozenset({
    "vocab_size",  # the tokens are counted
    "tensor_data_layout",  # of the first GGUF files
    "pooling_type",  # for embeddings only
    "attention.layer_norm_epsilon",  # of another norm than the root mean square
})  # fmt: skip
_WITHOUT_EFFECT_BELOW = "ssm."  # Granite 4's files have them although all of its layers have attention
_OF_DENSE_MODELS = frozenset({"expert_shared_feed_forward_length"})  # as above
_NEUTRAL = {
    "deepstack_mapping": (-1,),  # Granite's: which input a layer adds, -1 for none
    "expert_weights_scale": (0, 1),
    "expert_gating_func": (0, ExpertGatingFuncType.SOFTMAX),
}


def refuse_unknown_keys(file: GgufFile, architecture: str, family: Family) -> None:
    """Accepts keys that are read, that change nothing, and those whose value means "not applied".

    Raises:
        InputError: any other key below the architecture's name.
    """
    read = _READ | family.numbers.keys() | (_OF_WINDOWS if family.window_every else frozenset())
    without_effect = _WITHOUT_EFFECT
    if family.mixture is None:
        without_effect |= _OF_DENSE_MODELS
    else:
        read |= {family.mixture.width}
    for key, value in file.metadata.items():
        name = key.removeprefix(f"{architecture}.")
        if name == key or name in read or name in without_effect or name.startswith(_WITHOUT_EFFECT_BELOW):
            continue
        if name.startswith("rope.scaling."):  # gguf_rotary reads or refuses them
            continue
        if not _is_neutral(name, value):
            raise InputError(
                f"{file.path}: {plain(key, 80)} is {plain(str(value), 40)}, which the decoder does not compute",
                "Use a base without this setting",
            )


def _is_neutral(name: str, value: Any) -> bool:
    if name == "attention.causal":
        return value is True
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return all(item is not True and item in _NEUTRAL.get(name, (0,)) for item in items)
