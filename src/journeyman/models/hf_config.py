"""Reads config.json of a Hugging Face folder, with the defaults that `transformers` has for its kind of model.

transformers leaves out of the file what has the default value, so the defaults are part of the format. They are listed
here, from transformers 5 (models/*/configuration_*.py); tests/models/test_hf_config.py compares them with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeGuard

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG

_MOST_BYTES = 4 << 20
_MOST = 1 << 31
_TIES = "tie_word_embeddings"
TEXT_CONFIG = {"gemma3": "gemma3_text", "mistral3": "mistral"}
"""`model_type` of models of texts and pictures → that of the model of texts in them, if `text_config` does not say."""


@dataclass(frozen=True)
class ModelType:
    """A kind of model of transformers that the decoder can compute.

    Attributes:
        architecture: its name in GGUF.
        class_name: of the model with a head for the next token, in `architectures`.
        theta, local_theta: the base of rotary frequencies if the file has none; local: of layers with a window.
        activation: the key that names the activation of the feed-forward network, and the only value that is computed.
        always_biased: modules with a bias whatever the file says.
        windows: which layers have a window, if the file has one: "where used" stands for use_sliding_window.
        leaves_out_rotary: some layers have no rotary embedding.
        defaults: key → value.
    """

    architecture: str
    class_name: str
    defaults: Mapping[str, Any]
    theta: float = 10000.0
    local_theta: float | None = None
    activation: tuple[str, str] = ("hidden_act", "silu")
    always_biased: tuple[str, ...] = ()
    windows: Literal["none", "all layers", "some layers", "where used"] = "none"
    leaves_out_rotary: bool = False


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
_MINISTRAL_ROTARY = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
_GELU = ("hidden_activation", "gelu_pytorch_tanh")
MODEL_TYPES: Mapping[str, ModelType] = {
    "llama": ModelType("llama", "LlamaForCausalLM", _llama_like()),
    "mistral": ModelType(
        "llama", "MistralForCausalLM",
        _llama_like(**_MISTRAL, max_position_embeddings=131072, sliding_window=4096), windows="all layers",
    ),
    "ministral3": ModelType(
        "mistral3", "Ministral3ForCausalLM",
        _llama_like(
            **_MISTRAL, vocab_size=131072, num_hidden_layers=34, head_dim=128, max_position_embeddings=262144,
            rms_norm_eps=1e-5, rope_parameters=_MINISTRAL_ROTARY,
        ),
        windows="all layers",
    ),
    "qwen2": ModelType(
        "qwen2", "Qwen2ForCausalLM", _llama_like(**_QWEN), always_biased=("q_proj", "k_proj", "v_proj"),
        windows="where used",
    ),
    "qwen3": ModelType("qwen3", "Qwen3ForCausalLM", _llama_like(**_QWEN, head_dim=128), windows="where used"),
    "gemma2": ModelType(
        "gemma2", "Gemma2ForCausalLM", _gemma(attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
        activation=_GELU, windows="some layers",
    ),
    "gemma3_text": ModelType(
        "gemma3", "Gemma3ForCausalLM", _gemma(vocab_size=262208, max_position_embeddings=131072),
        theta=1e6, local_theta=10000.0, activation=_GELU, windows="some layers",
    ),
    "phi3": ModelType(
        "phi3", "Phi3ForCausalLM",
        _llama_like(
            vocab_size=32064, hidden_size=3072, intermediate_size=8192, max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        windows="all layers",
    ),
    "smollm3": ModelType(
        "smollm3", "SmolLM3ForCausalLM",
        _llama_like(
            vocab_size=128256, hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=4,
            max_position_embeddings=32768, tie_word_embeddings=True, use_sliding_window=False,
            no_rope_layer_interval=4,
        ),
        theta=2e6, windows="where used", leaves_out_rotary=True,
    ),
    "granite": ModelType(
        "granite", "GraniteForCausalLM",
        _llama_like(
            embedding_multiplier=1.0, logits_scaling=1.0, residual_multiplier=1.0, attention_multiplier=1.0
        ),
    ),
    "olmo2": ModelType("olmo2", "Olmo2ForCausalLM", _llama_like(vocab_size=50304, rms_norm_eps=1e-5)),
    "olmo3": ModelType(
        "olmo2", "Olmo3ForCausalLM", _llama_like(vocab_size=50304, rms_norm_eps=1e-5, sliding_window=4096),
        theta=500000.0, local_theta=500000.0, windows="some layers",
    ),
}  # fmt: skip
"""`model_type` in config.json → ModelType."""


@dataclass(frozen=True)
class HfConfig:
    """config.json, with defaults; raises InputError with the file's name where a value cannot be used.

    Attributes:
        path: of the file.
        values: what the file says of the model of texts; of `text_config` if it has one.
        quantization: what it says about quantized weights; None: nothing.
        has_pictures: the model also has parts for pictures, which are left out.
    """

    path: Path
    model_type: str
    kind: ModelType
    values: Mapping[str, Any]
    quantization: Mapping[str, Any] | None = None
    has_pictures: bool = False

    def get(self, key: str) -> Any:
        """The value, unchecked: the file's, or the default; null in the file counts as the default of null keys."""
        return self.values[key] if key in self.values else self.kind.defaults.get(key)

    def number(self, key: str) -> float:
        """A positive finite number."""
        value = self.get(key)
        if not is_number(value) or not 0 < value < math.inf:
            raise self.refusal(key, value, "not a positive number")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; `default` in place of null."""
        value = self.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < _MOST:
            raise self.refusal(key, value, "not a positive integer")
        return int(value)

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.refusal(key, value, "neither true nor false")

    def texts(self, key: str, count: int) -> list[Any] | None:
        """A list with one entry per layer; None if there is none."""
        value = self.get(key)
        if value is not None and (not isinstance(value, list) or len(value) < count):
            raise self.refusal(key, value, f"not a list for {count} layers")
        return value

    def refusal(self, key: str, value: Any, why: str) -> InputError:
        return InputError(
            f"{self.path}: {key} is {plain(repr(value), 60)}, {why}", "Use a complete, unchanged checkpoint"
        )


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_config(folder: Path) -> HfConfig:
    """Reads and checks the file; executes nothing.

    Raises:
        InputError: no such file, not JSON, or of a model that is not one of MODEL_TYPES.
    """
    path = folder / CONFIG
    values = read_object(path)
    outer, text = values.get("model_type"), values.get("text_config")
    nested = outer if isinstance(outer, str) and outer in TEXT_CONFIG else None
    if nested is not None:
        text = text if isinstance(text, dict) else {}
        inner = text.get("model_type", TEXT_CONFIG[nested])
    else:
        inner = outer if text is None else None
    kind = MODEL_TYPES.get(inner) if isinstance(inner, str) else None
    if kind is None or not isinstance(inner, str):
        raise _not_supported(path, values)
    _check_class(path, values, kind.class_name, nested=nested is not None)
    if nested is None or not isinstance(text, dict):
        return HfConfig(path, inner, kind, values, _quantization(path, values))
    kind = replace(kind, defaults={**kind.defaults, _TIES: True})
    shown = {**text, **({_TIES: values[_TIES]} if _TIES in values else {})}
    return HfConfig(path, inner, kind, shown, _quantization(path, values, text), has_pictures=True)


def _check_class(path: Path, values: Mapping[str, Any], wanted: str, *, nested: bool) -> None:
    found = values.get("architectures")
    name = found[0] if isinstance(found, list) and found else None
    if name is None or name == wanted or (nested and str(name).endswith("ForConditionalGeneration")):
        return
    raise InputError(
        f"{path}: architectures is {plain(str(name), 60)!r}, which is no model that writes texts as {wanted} does",
        "Use the model that this one was made from, or another base",
    )


def _quantization(path: Path, *places: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for values in places:
        for key in ("quantization_config", "quantization", "compression_config"):
            if (found := values.get(key)) is not None:
                if not isinstance(found, dict):
                    raise InputError(f"{path}: {key} is not an object", "Use a complete, unchanged checkpoint")
                return {"quant_method": "mlx", **found} if key == "quantization" else found
    return None


def _not_supported(path: Path, values: Mapping[str, Any]) -> InputError:
    name = values.get("architectures")
    shown = plain(str(name[0] if isinstance(name, list) and name else values.get("model_type")), 60)
    code = ". Its code is in the folder (auto_map) and is never executed" if values.get("auto_map") else ""
    return InputError(
        f"{path}: a model {shown!r} (model_type {plain(str(values.get('model_type')), 40)!r}) is not supported{code}",
        f"Use a base with one of these values of model_type: {', '.join([*MODEL_TYPES, *TEXT_CONFIG])}",
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a folder from elsewhere.

    Raises:
        InputError: no such file, too large, or not a JSON object with finite numbers.
    """
    remedy = "Download or copy the file again"
    if not path.is_file():
        raise InputError(f"{path}: no such file", "Download or copy all files of the model again")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES >> 20} MB", "Use another checkpoint")
    if data.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a pointer of Git LFS, not the file itself", f"Fetch it: git lfs pull -I {path.name}")

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    try:
        found = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        why = plain(str(error), 120) if data else "an empty file"
        raise InputError(f"{path}: not valid JSON: {why}", remedy) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object", remedy)
    return found
