"""The same model in transformers: the independent reference for the decoder and for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.models.decoder import Decoder


def transformers_twin(decoder: Decoder, architecture: str, scaling: Mapping[str, Any] | None = None) -> Any:
    """A transformers model with the decoder's weights. `architecture`: llama, mistral, qwen2 or qwen3.

    `scaling`: its rotary scaling (`rope_parameters` without the base); None: none.
    """
    import transformers

    g, w = decoder.geometry, decoder.weights
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[architecture]
    more = {"sliding_window": None} if architecture == "mistral" else {}
    config = getattr(transformers, f"{name}Config")(
        vocab_size=g.vocab, hidden_size=g.hidden, intermediate_size=g.ffn, num_hidden_layers=g.layers,
        num_attention_heads=g.heads, num_key_value_heads=g.kv_heads, head_dim=g.head_dim, rms_norm_eps=g.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": g.rope_theta, **(scaling or {})},
        max_position_embeddings=g.context, tie_word_embeddings=True, **more,
    )  # fmt: skip
    state = {"model.embed_tokens.weight": w.head_VD, "model.norm.weight": w.norm, "lm_head.weight": w.head_VD}
    for i, layer in enumerate(w.layers):
        place = f"model.layers.{i}."
        state |= {place + "input_layernorm.weight": layer.attention_norm}
        state |= {place + "post_attention_layernorm.weight": layer.ffn_norm}
        for module, value in layer.linear.items():
            block = "mlp" if module.split("_")[0] in ("gate", "up", "down") else "self_attn"
            state[f"{place}{block}.{module}.weight"] = value
        state |= {f"{place}self_attn.{module}.bias": value for module, value in layer.bias.items()}
        if layer.q_norm is not None and layer.k_norm is not None:
            state |= {f"{place}self_attn.q_norm.weight": layer.q_norm, f"{place}self_attn.k_norm.weight": layer.k_norm}
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.load_state_dict(state)
    return model
