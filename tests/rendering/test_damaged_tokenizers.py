"""Damaged and hostile tokenizer data end in an InputError with the reason, never in a crash or an endless loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_tokenizer import tokenizer_data_of
from journeyman.rendering.tokenizer import tokenizer_of
from vocabularies import byte_vocabulary, spm_vocabulary

MERGES = ["a b", "ab c"]


def _bpe() -> TokenizerData:
    tokens, types = byte_vocabulary(MERGES)
    return TokenizerData("gpt2", "gpt-2", tokens, types, MERGES, 0, 1)


def _spm() -> TokenizerData:
    return spm_vocabulary(["\u2581a", "ab"])


DAMAGES: dict[str, tuple[Callable[[], TokenizerData], dict[str, Callable[[Any], Any]]]] = {
    "1 tokens are duplicates": (_bpe, {"tokens": lambda old: [old[0], old[0], *old[2:]]}),
    "the tokens or their types are missing": (_bpe, {"tokens": lambda _: None}),
    "the tokens or their types are missing.": (_bpe, {"types": lambda _: None}),
    "the merges are missing": (_bpe, {"merges": lambda _: None}),
    "Token `xyz` out of vocabulary": (_bpe, {"merges": lambda old: [*old, "xyz a"]}),
    "out of vocabulary": (_bpe, {"merges": lambda old: [*old, "a"]}),
    "Token `cc` out of vocabulary": (_bpe, {"merges": lambda old: [*old, "c c"]}),
    "there is no token 99999": (_bpe, {"end_id": lambda _: 99999}),
    "there is no token -1": (_bpe, {"begin_id": lambda _: -1}),
    "argument 2 is longer|argument 2 is shorter": (_bpe, {"types": lambda old: old[:-1]}),
    "is damaged": (_bpe, {"tokens": lambda old: [7, *old[1:]]}),
    "is damaged: ": (_bpe, {"tokens": lambda _: 12}),
    "is damaged:  ?": (_bpe, {"merges": lambda _: [1, 2]}),
    "is damaged: .*": (_bpe, {"merges": lambda _: 3.5}),
    "2,097,153 tokens": (_bpe, {"tokens": lambda _: range((1 << 21) + 1)}),
    "the header says that prompts end": (_bpe, {"adds_end": lambda _: True}),
    "1 bytes have no token, such as <0x00>": (
        _spm,
        {"tokens": lambda old: [*old[:3], "x", *old[4:]], "types": lambda old: [*old[:3], 1, *old[4:]]},
    ),
    "261 scores": (_spm, {"scores": lambda old: old[:261]}),
    "scores, some of which may not be numbers": (_spm, {"scores": lambda old: [*old[:-1], float("nan")]}),
    "scores, some of which may not be numbers,": (_spm, {"scores": lambda old: [float("inf"), *old[1:]]}),
    "'<0x>' stands for no byte": (
        _spm, {"tokens": lambda old: [*old[:-1], "<0x>"], "types": lambda old: [*old[:-1], 6]}
    ),
    "has no token '<\\|endoftext\\|>'": (_spm, {"model_name": lambda _: "Phi-3"}),
}  # fmt: skip


@pytest.mark.parametrize("reason", DAMAGES)
def test_damaged_data_are_refused_with_the_reason(reason: str) -> None:
    make, changes = DAMAGES[reason]
    data = make()
    damaged = replace(data, **{name: change(getattr(data, name)) for name, change in changes.items()})
    assert tokenizer_of(data, "m.gguf").encode("ab a")
    with pytest.raises(InputError, match=f"m.gguf: .*({reason})"):
        tokenizer_of(damaged, "m.gguf")


def test_unknown_bytes_are_lost_as_in_the_engine_but_not_inside_whole_tokens() -> None:
    tokens, types = byte_vocabulary(MERGES)
    fewer = [token for token in tokens if token != "\u0104"]
    data = TokenizerData("gpt2", "gpt-2", fewer, types[1:], MERGES)
    tokenizer = tokenizer_of(data, "m.gguf")
    assert tokenizer.encode("a\x04b") == [fewer.index("a"), fewer.index("b")] != tokenizer.encode("ab")
    whole = replace(data, split="llama-bpe", tokens=[*fewer[:-1], "a\u0104"])
    with pytest.raises(InputError, match="1 tokens have bytes that are no tokens"):
        tokenizer_of(replace(whole, merges=["a b"]), "m.gguf")


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = ANYTHING | st.lists(ANYTHING, max_size=4)
KEYS = [
    "model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "add_bos_token", "scores",
    "add_space_prefix", "add_eos_token", "eot_token_id",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(["gpt2", "llama"]), changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_headers_with_values_of_any_type_are_read_or_refused(kind: str, changes: dict[str, Any]) -> None:
    made = _bpe() if kind == "gpt2" else _spm()
    header = {
        "tokenizer.ggml.model": kind, "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": made.tokens,
        "tokenizer.ggml.token_type": made.types, "tokenizer.ggml.merges": made.merges,
        "tokenizer.ggml.scores": made.scores, "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
    }  # fmt: skip
    header |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    data = tokenizer_data_of(header)
    try:
        tokenizer_of(data, "m.gguf").encode("ab a <|end|>")
    except InputError as error:
        assert "m.gguf" in str(error)
