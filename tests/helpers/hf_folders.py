"""Tiny Hugging Face folders with tokenizers of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hostile_texts import REAL, mixtures
from trained_spm import trained

SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{REST}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    + REST.replace(r"[\r\n]*", r"[\r\n/]*")
)  # fmt: skip
TEMPLATE = "{{ messages[0].content }}"
_ADDED = {
    "__type": "AddedToken", "content": "<|end|>", "lstrip": False, "rstrip": False, "normalized": False,
    "single_word": False, "special": True,
}  # fmt: skip
_CONFIG = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "head_dim": 16, "sliding_window": 64,
}  # fmt: skip


def write_json(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def _cut(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), "isolated")


def byte_level(
    folder: Path, steps: list[pre_tokenizers.PreTokenizer], *, regex: bool = False, ignores_merges: bool = False,
    begins: bool = False, normalizer: normalizers.Normalizer | None = None,
) -> Path:  # fmt: skip
    """A folder with a byte-level tokenizer of this split."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(REAL + mixtures(200), trainer)
    special = ["<|begin|>", "<|end|>", "<|user|>"]
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<|looks|>", normalized=False)])
    if begins:
        first = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
        tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[first])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": _ADDED, "chat_template": TEMPLATE}
    write_json(folder, "tokenizer_config.json", {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    size = tokenizer.get_vocab_size() + 5
    write_json(
        folder, "config.json",
        {**_CONFIG, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size},
    )  # fmt: skip
    return folder


def sentencepiece(folder: Path, architecture: str, model_type: str, **settings: Any) -> Path:
    """A folder with a SentencePiece tokenizer as Llama 2, Gemma and Phi-3 have them."""
    folder.mkdir()
    model = trained("bpe", user_defined_symbols=["<h1>", "\n\n", "\u2581\u2581"])
    proto: bytes = model.serialized_model_proto()
    (folder / "tokenizer.model").write_bytes(proto)
    size = model.get_piece_size()
    added = {
        str(model.piece_to_id("<h1>")): {"content": "<h1>", "special": False},
        str(model.piece_to_id("\u2581\u2581")): {"content": "\u2581\u2581", "special": False},
        str(model.piece_to_id("[INST]")): {"content": "[INST]", "special": True},
        str(size): {"content": "<|im_start|>", "special": False},
        str(size + 1): {"content": "<extra>", "special": False},
        str(size + 9): {"content": "<beyond>", "special": False},
    }
    write_json(
        folder, "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE, "added_tokens_decoder": added,
         "tokenizer_class": "LlamaTokenizer", **settings},
    )  # fmt: skip
    write_json(
        folder, "config.json",
        {**_CONFIG, "architectures": [architecture], "model_type": model_type, "vocab_size": size + 4,
         "bos_token_id": 1, "eos_token_id": 2},
    )  # fmt: skip
    write_json(folder, "generation_config.json", {"eos_token_id": [2, size]})
    return folder


FOLDERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "gpt2": ("gpt-2", lambda folder: byte_level(folder, [], regex=True)),
    "smollm": ("smollm", lambda folder: byte_level(folder, [pre_tokenizers.Digits(True)], regex=True)),
    "qwen2": (
        "qwen2",
        lambda folder: byte_level(folder, [_cut(LLAMA3.replace("{1,3}", ""))], normalizer=normalizers.NFC()),
    ),
    "llama3": (
        "llama-bpe", lambda folder: byte_level(folder, [_cut(LLAMA3)], ignores_merges=True, begins=True)
    ),
    "phi4": ("dbrx", lambda folder: byte_level(folder, [_cut(LLAMA3)])),
    "tekken": ("tekken", lambda folder: byte_level(folder, [_cut(TEKKEN)], ignores_merges=True)),
    "llama2": ("default", lambda folder: sentencepiece(folder, "LlamaForCausalLM", "llama", add_prefix_space=None)),
    "mistral": (
        "default",
        lambda folder: sentencepiece(
            folder, "MistralForCausalLM", "mistral", add_prefix_space=False, add_bos_token=True
        ),
    ),
    "gemma": ("default", lambda folder: sentencepiece(folder, "Gemma3ForCausalLM", "gemma3_text")),
}  # fmt: skip
"""Kind → (the name of its pre-tokenizer, a function that makes the folder)."""
