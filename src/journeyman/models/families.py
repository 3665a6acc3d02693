"""The families of decoders: one table of what differs between them.

Sources: the models in `transformers` (models/*/modeling_*.py) and in ggml-org/llama.cpp (src/models/*.cpp), which
serves them. docs/bases.md lists what is tested for each family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

_GGUF_NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "qkv_proj": "attn_qkv", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "gate_up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block, under the names of `transformers`."""
FUSED_MODULES = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
_FUSED_INTO = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "o_proj": "o_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj",
}  # fmt: skip
_QKV = ("q_proj", "k_proj", "v_proj")
_BEFORE = {"attention_norm": "attn_norm", "ffn_norm": "ffn_norm"}
_AFTER = {"attention_post_norm": "post_attention_norm", "ffn_post_norm": "post_ffw_norm"}


@dataclass(frozen=True)
class Family:
    """What is the same in all models of a family; numbers that differ between its models are in Geometry.

    Attributes:
        rotates_pairs: GGUF stores the rows of q and k as interleaved rotary pairs; otherwise as halves.
        norms: the norms of a block: name in LayerWeights → name in GGUF. A norm "before" normalizes the input of
            attention or feed-forward, a "post" norm their output, before it is added.
        qk_norm: queries and keys are normalized: each head, or all heads together.
        fused: q, k and v are one matrix, and so are gate and up.
        activation: of the gate; gelu is the tanh approximation.
        biases: the linear layers that may have a bias.
        partial_rotary: the engine can rotate only the first elements of a head (rope.dimension_count).
        scales_embedding: embeddings are multiplied by the square root of the hidden size.
        divides_by_rope_freqs: `rope_freqs.weight` divides the rotary frequencies, if the file has it.
        unrotated_every: every n-th layer has no rotary embedding; 0: none.
        window_every: layers have a sliding window, except every n-th, unless the file says which; 0: none has.
        numbers: keys of the header that the engine reads for this family and ignores for others, with the value that
            it takes if the key is missing; None: the file must have it. 0 means: not applied.
        default_window: of a file that does not say, in tokens; 0: none.
    """

    rotates_pairs: bool = False
    norms: Mapping[str, str] = field(default_factory=lambda: _BEFORE)
    qk_norm: Literal["none", "head", "all"] = "none"
    fused: bool = False
    activation: Literal["silu", "gelu"] = "silu"
    biases: tuple[str, ...] = _QKV
    partial_rotary: bool = False
    scales_embedding: bool = False
    divides_by_rope_freqs: bool = False
    unrotated_every: int = 0
    window_every: int = 0
    default_window: int = 0
    numbers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def modules(self) -> tuple[str, ...]:
        """The linear layers of a block, under the names of `transformers`."""
        return FUSED_MODULES if self.fused else MODULES

    def adapted(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The modules that an adapter for these `train.lora.targets` changes: fused ones change as a whole."""
        return tuple(dict.fromkeys(_FUSED_INTO[one] if self.fused else one for one in targets))


_GEMMA = Family(norms=_BEFORE | _AFTER, activation="gelu", scales_embedding=True)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(rotates_pairs=True, biases=MODULES, divides_by_rope_freqs=True),
    "mistral3": Family(rotates_pairs=True, biases=MODULES, numbers={"attention.temperature_scale": 0.0}),
    "smollm3": Family(rotates_pairs=True, unrotated_every=4),
    "granite": Family(
        rotates_pairs=True, biases=MODULES, divides_by_rope_freqs=True,
        numbers={"logit_scale": None, "residual_scale": 0.0, "embedding_scale": 0.0, "attention.scale": 0.0},
    ),
    "qwen2": Family(),
    "qwen3": Family(qk_norm="head"),
    "gemma2": replace(
        _GEMMA, window_every=2, default_window=4096,
        numbers={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": replace(_GEMMA, qk_norm="head", window_every=6, numbers={"final_logit_softcapping": 0.0}),
    "phi3": Family(fused=True, partial_rotary=True),
    "olmo2": Family(norms=_AFTER, qk_norm="all", window_every=4),
}  # fmt: skip
"""`general.architecture` in GGUF → Family. Mistral's models before Ministral 3 are "llama" there."""


def gguf_name(module: str) -> str:
    """The name of a module's tensors in GGUF, inside a block."""
    return _GGUF_NAMES[module]
