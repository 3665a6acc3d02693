"""Builds the tokenizer of a base.

The base names its pre-tokenizer (`tokenizer.ggml.pre` in GGUF). The splits below are those that llama.cpp uses under
that name (src/llama-vocab.cpp), so that training and serving split text in the same way. `evaluate` verifies this: it
compares the token ids of every prompt with the engine's before it asks for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from journeyman.errors import InputError
from journeyman.models.base import TokenizerData

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS: Mapping[str, Sequence[Any]] = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(Regex(_LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "qwen2": [
        pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
# llama.cpp treats tokens with these names as control tokens regardless of the header (src/llama-vocab.cpp).
_CONTROL_BY_NAME = re.compile(
    r"<\|?(?:(?:fim|code)[-_](?:prefix|suffix|middle|pad|repo|sep)|repo_?name|file_sep|PRE|SUF|MID|EOT|return|call|calls"
    r"|flush|turn|end|im_end|eot|eot_id|eom|eom_id|endoftext|end_of_text|end_of_turn|end_of_utterance"
    r"|end_of_sentence)\|?>|_<EOT>|< EOT >|\[EO[TS]\]|<turn\|>"
    "|<\uff5c(?:fim\u2581(?:begin|hole|end)|end\u2581of\u2581sentence)\uff5c>"
)


def tokenizer_of(data: TokenizerData, where: str) -> Tokenizer:
    """The tokenizer of a base.

    Args:
        where: the file, for error messages.

    Raises:
        InputError: there is none, or its kind is not supported.
    """
    kind, split = data.kind, data.split
    if kind != "gpt2" or split not in _SPLITS:
        raise InputError(
            f"{where}: tokenizer {kind!r} with pre-tokenizer {split!r} is not supported",
            f"Use a base whose tokenizer is 'gpt2' with one of: {', '.join(_SPLITS)}",
        )
    try:
        return _build(data)
    except Exception as error:  # the library raises plain Exceptions for an inconsistent vocabulary
        raise InputError(f"{where}: the tokenizer in the header is damaged: {error}", "Use another GGUF") from error


def special_tokens(data: TokenizerData) -> list[str]:
    """The texts that become a single token anywhere in a text."""
    return [token for token, kind in data.typed_tokens() if kind in (_CONTROL, _USER_DEFINED)]


def control_texts(data: TokenizerData) -> list[str]:
    """The texts that become a single token with a special meaning, here or in the engine, anywhere in a text."""
    return [
        token
        for token, kind in data.typed_tokens()
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) or (token[:1] in "<[_" and _CONTROL_BY_NAME.fullmatch(token))
    ]


def _build(data: TokenizerData) -> Tokenizer:
    typed = data.typed_tokens()
    if data.merges is None:
        raise ValueError("the merges are missing")
    tokens = [token for token, _ in typed]
    merges = [(left, right) for left, _, right in (pair.partition(" ") for pair in data.merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) < len(tokens):  # llama.cpp fails with an assertion
        raise ValueError(f"{len(tokens) - len(vocab)} tokens are duplicates")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=data.split == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(_SPLITS[data.split]))
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in typed if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    custom = [token for token, kind in typed if kind == _USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in custom])
    return tokenizer
