"""Reads the shape of a decoder from config.json: what transformers computes.

A window that llama.cpp does not apply in the family (models.families) is not applied in training either. Other settings
that differ from those of a GGUF file show when the two are compared (same_base).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from journeyman.models.geometry import AlternateLayers, Experts, Geometry
from journeyman.models.hf_config import HfConfig
from journeyman.models.hf_rotary import RotarySettings

_MOST_HEAD = 1 << 14
_WINDOW, _FULL = "sliding_attention", "full_attention"


def geometry_of(config: HfConfig, *, tied_head: bool, biases: tuple[str, ...]) -> Geometry:
    """The geometry that config.json describes; whether the tensors fit it is not checked here.

    Args:
        tied_head: the head is the embedding, which the file alone does not decide.
        biases: the modules with a bias.

    Raises:
        InputError: a damaged value, or a setting that the decoder does not compute.
    """
    _refuse_unsupported(config)
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    rotary = RotarySettings(config)
    head_dim = config.count("head_dim", hidden // heads)
    if head_dim > _MOST_HEAD:
        raise config.refusal("head_dim", head_dim, f"more than {_MOST_HEAD}")
    rotated = int(head_dim * rotary.rotated_share)
    geometry = Geometry(
        architecture=config.kind.architecture,
        layers=config.count("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        ffn=config.count(config.kind.width),
        vocab=config.count("vocab_size"),
        context=config.count("max_position_embeddings"),
        rope_theta=rotary.theta,
        rms_eps=_rounded(config.number("rms_norm_eps")),
        tied_head=tied_head,
        biases=biases,
        rotary_dim=None if rotated == head_dim else rotated,
        experts=_experts(config),
    )
    if geometry.heads % geometry.kv_heads or rotated % 2 or not rotated:
        raise config.refusal(
            "num_attention_heads", heads, f"of {head_dim}, {geometry.kv_heads} of keys and {rotated} rotated elements"
        )
    if rotated != head_dim and not geometry.family.partial_rotary:
        raise config.refusal(
            "partial_rotary_factor", rotary.rotated_share, "which the engine does not compute in this family"
        )
    geometry = replace(geometry, rotary=rotary.scaling(rotated), temperature=rotary.temperature())
    reads = ("two", "either") if geometry.rotary.long_divisors else ("either",)
    if geometry.rotary.divisors and geometry.family.rotary_divisors not in reads:
        raise config.refusal("rope_type", rotary.kind, "which the engine does not compute in this family")
    return _with_windows(config, _with_scales(config, geometry))


def _experts(config: HfConfig) -> Experts | None:
    if not config.kind.experts:
        return None
    # transformers takes one name for the other.
    stated = [key for key in ("num_experts", "num_local_experts") if config.values.get(key) is not None]
    counts = [config.count(key) for key in stated] or [config.count(config.kind.experts)]
    if counts[0] != counts[-1]:
        raise config.refusal(stated[0], counts[0], f"but {stated[1]} is {counts[1]}")
    experts = Experts(counts[0], config.count("num_experts_per_tok"))
    if experts.used > experts.count:
        raise config.refusal("num_experts_per_tok", experts.used, f"more than {experts.count} experts")
    return experts


def _with_scales(config: HfConfig, geometry: Geometry) -> Geometry:
    """The geometry with the numbers that multiply or cap what a decoder computes."""
    if geometry.architecture.startswith("granite"):
        return replace(
            geometry,
            embedding_scale=_rounded(config.number("embedding_multiplier")),
            residual_scale=_rounded(config.number("residual_multiplier")),
            attention_scale=_rounded(config.number("attention_multiplier")),
            logit_scale=1.0 / _rounded(config.number("logits_scaling")),
        )
    if not geometry.family.scales_embedding:
        return geometry
    scalar = config.number("query_pre_attn_scalar")
    attention_cap, logit_cap = (
        None if config.get(key) is None else _rounded(config.number(key))
        for key in ("attn_logit_softcapping", "final_logit_softcapping")
    )
    return replace(
        geometry,
        embedding_scale=geometry.hidden**0.5,
        attention_scale=None if scalar == geometry.head_dim else scalar**-0.5,
        attention_cap=attention_cap,
        logit_cap=logit_cap,
    )


def _with_windows(config: HfConfig, geometry: Geometry) -> Geometry:
    """The geometry with its layers that have a window or no rotary embedding."""
    unrotated = _unrotated(config, geometry.layers)
    geometry = replace(geometry, alternate=AlternateLayers(unrotated) if unrotated else None)
    window = 0 if config.get("sliding_window") is None else config.count("sliding_window")
    unused = config.kind.windows == "used" and not config.flag("use_sliding_window")
    if not window or unused or config.kind.windows == "none":
        return geometry
    if config.kind.windows != "some":
        return replace(geometry, unserved_window=window)
    layers = _windowed(config, geometry)
    if not layers:
        return geometry
    rotary = RotarySettings(config, window=True)
    size = geometry.rotary_dim or geometry.head_dim
    return replace(geometry, alternate=AlternateLayers(layers, window, rotary.theta, rotary.scaling(size)))


def _windowed(config: HfConfig, geometry: Geometry) -> tuple[int, ...]:
    """The layers with a window, in a family where some have one."""
    types = config.texts("layer_types", geometry.layers)
    if types is None:
        every = config.count("sliding_window_pattern", geometry.family.window_every)
        return tuple(number for number in range(geometry.layers) if (number + 1) % every)
    if not all(one in (_WINDOW, _FULL) for one in types):
        raise config.refusal("layer_types", types, f"not only {_WINDOW} and {_FULL}")
    return tuple(number for number, kind in enumerate(types[: geometry.layers]) if kind == _WINDOW)


def _unrotated(config: HfConfig, layers: int) -> tuple[int, ...]:
    """The layers without rotary embedding."""
    if not config.kind.leaves_out_rotary:
        return ()
    rotates = config.texts("no_rope_layers", layers)
    if rotates is None:
        every = config.count("no_rope_layer_interval")
        return tuple(range(every - 1, layers, every))
    return tuple(number for number, rotated in enumerate(rotates[:layers]) if not rotated)


def _refuse_unsupported(config: HfConfig) -> None:
    key, wanted = config.kind.activation
    if config.get(key) not in (None, wanted):
        raise config.refusal(key, config.get(key), f"but only {wanted} is computed")
    for key, only in config.kind.only.items():
        if (value := config.get(key)) != only and (value or only):
            raise config.refusal(key, value, f"but only {only!r} is computed")
    for key in ("use_bidirectional_attention", "is_encoder_decoder"):
        if config.get(key):
            raise config.refusal(key, config.get(key), "which is not computed")


def _rounded(value: float) -> float:
    """As GGUF stores it, in float32."""
    return float(np.float32(value))
