"""The kinds of models in transformers that the decoder can compute, with their defaults.

transformers leaves out of config.json what has the default value, so the defaults are part of the format. They are
those of transformers 5 (models/*/configuration_*.py); tests/models/test_hf_config.py compares them with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelType:
    """A kind of model of transformers that the decoder can compute.

    Attributes:
        architecture: its name in GGUF.
        class_name: of the model with a head for the next token, in `architectures`.
        theta, local_theta: the base of rotary frequencies if the file has none; local: of layers with a window.
        activation: the key that names the activation of the feed-forward network, and the only value that is computed.
        always_biased: modules with a bias whatever the file says.
        windows: which layers have a window, if the file has one: "used" stands for use_sliding_window.
        leaves_out_rotary: some layers have no rotary embedding.
        experts: the key that says how many experts there are; "": none.
        width: the key of the feed-forward width, of each expert.
        only: key → the only value that is computed.
        defaults: key → value.
    """

    architecture: str
    class_name: str
    defaults: Mapping[str, Any]
    theta: float = 10000.0
    local_theta: float | None = None
    activation: tuple[str, str] = ("hidden_act", "silu")
    always_biased: tuple[str, ...] = ()
    windows: Literal["none", "every", "some", "used"] = "none"
    leaves_out_rotary: bool = False
    experts: str = ""
    width: str = "intermediate_size"
    only: Mapping[str, Any] = field(default_factory=dict)


def _llama_like(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        "sliding_window": None, **more,
    }  # fmt: skip


def _gemma(**more: Any) -> dict[str, Any]:
    return _llama_like(
        **{
            "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
            "tie_word_embeddings": True, "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "attn_logit_softcapping": None, "final_logit_softcapping": None, "use_bidirectional_attention": False,
            **more,
        }
    )  # fmt: skip


_QWEN = {
    "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
_MISTRAL = {"intermediate_size": 14336, "num_key_value_heads": 8}
_GRANITE = {
    "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
}  # fmt: skip
_MINISTRAL_ROTARY = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
_GELU = ("hidden_activation", "gelu_pytorch_tanh")
MODEL_TYPES: Mapping[str, ModelType] = {
    "llama": ModelType("llama", "LlamaForCausalLM", _llama_like()),
    "mistral": ModelType(
        "llama", "MistralForCausalLM",
        _llama_like(**_MISTRAL, max_position_embeddings=131072, sliding_window=4096), windows="every",
    ),
    "ministral3": ModelType(
        "mistral3", "Ministral3ForCausalLM",
        _llama_like(
            **_MISTRAL, vocab_size=131072, num_hidden_layers=34, head_dim=128, max_position_embeddings=262144,
            rms_norm_eps=1e-5, rope_parameters=_MINISTRAL_ROTARY,
        ),
        windows="every",
    ),
    "qwen2": ModelType(
        "qwen2", "Qwen2ForCausalLM", _llama_like(**_QWEN), always_biased=("q_proj", "k_proj", "v_proj"),
        windows="used",
    ),
    "qwen3": ModelType("qwen3", "Qwen3ForCausalLM", _llama_like(**_QWEN, head_dim=128), windows="used"),
    "qwen3_moe": ModelType(
        "qwen3moe", "Qwen3MoeForCausalLM",
        _llama_like(
            vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=24, num_key_value_heads=4,
            max_position_embeddings=32768, use_sliding_window=False, sliding_window=4096, moe_intermediate_size=768,
            num_experts=128, num_experts_per_tok=8, norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[],
        ),
        windows="used", experts="num_experts", width="moe_intermediate_size",
        only={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "mixtral": ModelType(
        "llama", "MixtralForCausalLM",
        _llama_like(
            **_MISTRAL, max_position_embeddings=131072, rms_norm_eps=1e-5, num_local_experts=8, num_experts_per_tok=2,
        ),
        windows="every", experts="num_local_experts",
    ),
    "olmoe": ModelType(
        "olmoe", "OlmoeForCausalLM",
        _llama_like(
            vocab_size=50304, hidden_size=2048, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=16,
            max_position_embeddings=4096, rms_norm_eps=1e-5, num_experts=64, num_experts_per_tok=8,
            norm_topk_prob=False, clip_qkv=None,
        ),
        experts="num_experts", only={"norm_topk_prob": False, "clip_qkv": None},
    ),
    "granitemoe": ModelType(
        "granitemoe", "GraniteMoeForCausalLM",
        _llama_like(**_GRANITE, num_local_experts=8, num_experts_per_tok=2), experts="num_local_experts",
    ),
    "gemma2": ModelType(
        "gemma2", "Gemma2ForCausalLM", _gemma(attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
        activation=_GELU, windows="some",
    ),
    "gemma3_text": ModelType(
        "gemma3", "Gemma3ForCausalLM", _gemma(vocab_size=262208, max_position_embeddings=131072),
        theta=1e6, local_theta=10000.0, activation=_GELU, windows="some",
    ),
    "phi3": ModelType(
        "phi3", "Phi3ForCausalLM",
        _llama_like(
            vocab_size=32064, hidden_size=3072, intermediate_size=8192, max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        windows="every",
    ),
    "smollm3": ModelType(
        "smollm3", "SmolLM3ForCausalLM",
        _llama_like(
            vocab_size=128256, hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=4,
            max_position_embeddings=32768, tie_word_embeddings=True, use_sliding_window=False,
            no_rope_layer_interval=4,
        ),
        theta=2e6, windows="used", leaves_out_rotary=True,
    ),
    "granite": ModelType(
        "granite", "GraniteForCausalLM", _llama_like(**_GRANITE),
    ),
    "olmo2": ModelType("olmo2", "Olmo2ForCausalLM", _llama_like(vocab_size=50304, rms_norm_eps=1e-5)),
    "olmo3": ModelType(
        "olmo2", "Olmo3ForCausalLM", _llama_like(vocab_size=50304, rms_norm_eps=1e-5, sliding_window=4096),
        theta=500000.0, local_theta=500000.0, windows="some",
    ),
}  # fmt: skip
"""`model_type` in config.json → ModelType."""
