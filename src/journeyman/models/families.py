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
    "experts.gate_up_proj": "ffn_up_exps", "experts.down_proj": "ffn_down_exps",
}  # fmt: skip
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block, under the names of `transformers`."""
FUSED_MODULES = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
MIXTURE_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "experts.gate_up_proj", "experts.down_proj")
"""Those of a block with experts. The matrices of its experts are stacked: (experts, out_features, in_features)."""
_EXPERTS = ("experts.gate_up_proj", "experts.down_proj")
_PART_OF = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), ("qkv_proj",)),
    **dict.fromkeys(("gate_proj", "up_proj"), ("gate_up_proj", *_EXPERTS)),
    "down_proj": _EXPERTS,
}
"""A module → those that change with it, in families that do not have it alone."""
_QKV = ("q_proj", "k_proj", "v_proj")
_BEFORE = {"attention_norm": "attn_norm", "ffn_norm": "ffn_norm"}
_AFTER = {"attention_post_norm": "post_attention_norm", "ffn_post_norm": "post_ffw_norm"}


@dataclass(frozen=True)
class Mixture:
    """A feed-forward network of experts, of which a router chooses a few for each token.

    Attributes:
        always: the family has no models without experts.
        normalized: the weights of the experts that are chosen add up to one; otherwise those of all experts do.
        biases: the router and the experts have biases.
        width: the key of the experts' feed-forward width; without that key, feed_forward_length is the width.
        place: of the experts in the blocks of `transformers` 5, which stacks their matrices.
        place_of_each: of each expert in the blocks of older versions and of vLLM, for families that had a module for
            each there; None: they were stacked.
        names_of_each: there, the names of gate, up and down.
        interleaved: `transformers` stores the outputs of gate and up alternately, not as halves.
    """

    always: bool = True
    normalized: bool = True
    biases: bool = False
    width: str = "feed_forward_length"
    place: str = "mlp.experts"
    place_of_each: str | None = "mlp.experts"
    names_of_each: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    interleaved: bool = False


@dataclass(frozen=True)
class Family:
    """What is the same in all models of a family; numbers that differ between its models are in Geometry.

    Attributes:
        rotates_pairs: GGUF stores the rows of q and k as interleaved rotary pairs; otherwise as halves.
        norms: the norms of a block: name in LayerWeights → name in GGUF. A norm "before" normalizes the input of
            attention or feed-forward, a "post" norm their output, before it is added.
        qk_norm: queries and keys are normalized: each head, or all heads together.
        fused: q, k and v are one matrix, and so are gate and up.
        activation: of the gate; gelu is the tanh approximation, clamped a SiLU of gpt-oss (models.activation).
        biases: the linear layers that may have a bias.
        partial_rotary: the engine can rotate only the first elements of a head (rope.dimension_count).
        scales_embedding: embeddings are multiplied by the square root of the hidden size.
        rotary_divisors: tensors with divisors of the rotary frequencies that the engine reads: "two",
            `rope_factors_short` and `rope_factors_long`; "either", these if rope.scaling.type is longrope, otherwise
            `rope_freqs`.
        unrotated_every: every n-th layer has no rotary embedding; 0: none.
        rotates_if_finetuned: rope.scaling.finetuned = false means that no layer has a rotary embedding.
        window_every: layers have a sliding window, except every n-th, if the file has no other number; 0: none has.
        numbers: keys of the header that the engine reads for this family and ignores for others, with the value that
            it takes if the key is missing; None: the file must have it. 0 means: not applied, and may be stated
            unless the default is another number.
        default_window: of a file that does not say, in tokens; 0: none.
        window_theta: base of the rotary frequencies of layers with a window: of a file that does not say (None: that
            of the other layers), or always that of the other layers ("shared").
        scales_windows: layers with a window have the rotary scaling of the other layers, otherwise none.
        head: the output matrix is the embedding ("tied"), a tensor of its own ("own"), or what the file has.
        heads_fill_hidden: the engine takes hidden / heads for the size of a head, whatever the file says.
        mixture: of models with experts; None: there are none.
        sinks: attention has sinks (LayerWeights.sinks).
    """

    rotates_pairs: bool = False
    norms: Mapping[str, str] = field(default_factory=lambda: _BEFORE)
    qk_norm: Literal["none", "head", "together"] = "none"
    fused: bool = False
    activation: Literal["silu", "gelu", "clamped"] = "silu"
    biases: tuple[str, ...] = _QKV
    partial_rotary: bool = False
    scales_embedding: bool = False
    rotary_divisors: Literal["none", "two", "either"] = "none"
    unrotated_every: int = 0
    rotates_if_finetuned: bool = False
    window_every: int = 0
    default_window: int = 0
    window_theta: float | Literal["shared"] | None = None
    scales_windows: bool = False
    head: Literal["any", "tied", "own"] = "any"
    heads_fill_hidden: bool = False
    mixture: Mixture | None = None
    sinks: bool = False
    numbers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def dense_modules(self) -> tuple[str, ...]:
        """The linear layers of a block without experts, under the names of `transformers`."""
        return FUSED_MODULES if self.fused else MODULES


_YARN = {
    "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0, "rope.scaling.yarn_log_multiplier": 0.0,
}  # fmt: skip
_GRANITE = Family(
    rotates_pairs=True, biases=MODULES, rotary_divisors="either", rotates_if_finetuned=True,
    numbers={"logit_scale": None, "residual_scale": 0.0, "embedding_scale": 0.0, "attention.scale": 0.0},
)  # fmt: skip
_GEMMA = Family(norms=_BEFORE | _AFTER, activation="gelu", scales_embedding=True)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        rotates_pairs=True, biases=MODULES, rotary_divisors="either",
        mixture=Mixture(
            always=False, place_of_each="block_sparse_moe.experts", names_of_each=("w1", "w3", "w2")
        ),
    ),
    "mistral3": Family(
        rotates_pairs=True, biases=MODULES, rotary_divisors="either",
        numbers={"attention.temperature_scale": 0.0, **_YARN},
    ),
    "smollm3": Family(rotates_pairs=True, unrotated_every=4),
    "granite": _GRANITE,
    "qwen2": Family(heads_fill_hidden=True),
    "qwen3": Family(qk_norm="head"),
    "gemma2": replace(
        _GEMMA, window_every=2, default_window=4096, scales_windows=True, head="tied",
        numbers={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": replace(
        _GEMMA, qk_norm="head", window_every=6, window_theta=10000.0, numbers={"final_logit_softcapping": 0.0}
    ),
    "phi3": Family(fused=True, partial_rotary=True, rotary_divisors="two", heads_fill_hidden=True),
    "olmo2": Family(
        norms=_AFTER, qk_norm="together", biases=(), window_every=4, window_theta="shared", head="own",
        heads_fill_hidden=True,
    ),
    "qwen3moe": Family(qk_norm="head", mixture=Mixture(width="expert_feed_forward_length")),
    "granitemoe": replace(
        _GRANITE, rotates_if_finetuned=False, mixture=Mixture(place="block_sparse_moe.experts", place_of_each=None)
    ),
    "olmoe": Family(
        qk_norm="together", biases=(), head="own", heads_fill_hidden=True, mixture=Mixture(normalized=False),
    ),
    "gpt-oss": Family(
        norms={"attention_norm": "attn_norm", "ffn_norm": "post_attention_norm"}, biases=MIXTURE_MODULES,
        activation="clamped", window_every=2, scales_windows=True, sinks=True, head="own",
        mixture=Mixture(biases=True, width="expert_feed_forward_length", place_of_each=None, interleaved=True),
    ),
}  # fmt: skip
"""`general.architecture` in GGUF → Family. Mistral's models before Ministral 3, and Mixtral, are "llama" there."""


def modules_holding(modules: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """The modules that an adapter for these `train.lora.targets` changes.

    Fused ones change as a whole. So do experts, because `peft` and vLLM only read adapters for all of their matrices.
    """
    found = [holders(target) for target in targets]
    return tuple(dict.fromkeys(one for names in found for one in modules if one in names))


def is_stacked(module: str) -> bool:
    """Whether a module has a matrix for each expert."""
    return module.startswith("experts.")


def gguf_name(module: str) -> str:
    """The name of a module's tensors in GGUF, inside a block."""
    return _GGUF_NAMES[module]


def gguf_parts(module: str) -> tuple[str, ...]:
    """The names of the tensors in GGUF whose rows, put together, are a module's."""
    return ("ffn_gate_exps", "ffn_up_exps") if module == "experts.gate_up_proj" else (gguf_name(module),)


def holders(module: str) -> tuple[str, ...]:
    """The names under which a family may have one of MODULES: its own, and those of matrices that contain it."""
    return (module, *_PART_OF.get(module, ()))
