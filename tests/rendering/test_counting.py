"""Token counts without encoding equal those of the tokenizer, for every supported tokenizer."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.models.pre_tokenizers import PRE_TOKENIZERS
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.rendering.tokenizer import Tokenizer, tokenizer_of
from vocabularies import byte_vocabulary, spm_vocabulary

MOST_USED = ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o", "deepseek-v3"]
PIECES = st.sampled_from(
    ["a", "I'll", "'S", "don't", " ", "  ", "\n", "\n\n", "\t", "\r\n", "1", "42", " 7", ".", "...", "é", "—", "😀",
     "<|end|>", "def f(x):", "_", "/", "\n/", "\x1c", "\x0b", "\u00a0", "日本", "١", "²", "½", "Ⅷ", "\u0301",
     "X", "XML"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join)


@cache
def _tokenizer(name: str) -> Tokenizer:
    # Merges within and across character classes: which one applies depends on where a piece ends.
    merges = ["a a", "1 1", "Ġ Ġ", "Ċ Ċ", ". .", "Ġ a", "4 2", "Ġ 1", "I '", "l l", "ĊĊ Ċ", ". Ċ", "Ċ /", "X M", "a '"]
    tokens, types = byte_vocabulary(merges)
    return tokenizer_of(TokenizerData("gpt2", name, tokens, types, merges), "test")


@pytest.mark.parametrize("name", MOST_USED)
@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_counts_equal_the_tokenizer(name: str, text: str) -> None:
    assert _tokenizer(name).count(text) == len(_tokenizer(name).encode(text))


@pytest.mark.parametrize("name", [name for name in PRE_TOKENIZERS if name not in MOST_USED])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_counts_equal_the_tokenizer_under_other_names(name: str, text: str) -> None:
    assert _tokenizer(name).count(text) == len(_tokenizer(name).encode(text))


@pytest.mark.parametrize("continues", [True, False])
@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_counts_equal_a_sentencepiece_tokenizer(continues: bool, text: str) -> None:
    tokenizer = tokenizer_of(spm_vocabulary(["▁a", "aa", "▁▁", "'S", "don", "<|end|>"]), "test")
    assert tokenizer.count(text, continues) == len(tokenizer.encode(text, continues))


def test_counts_of_rendered_prompts_equal_the_renderer(renderer: Renderer) -> None:
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Sum 12 + 345?\n\nÜber—all")]
    assert renderer.prompt_tokens(messages) == len(renderer.prompt_ids(messages))


def test_a_text_that_comes_again_has_the_count_of_the_first_time(embedded: GgufFile) -> None:
    renderer = Renderer(embedded)
    texts = ["You are a coder.", "naïve <|im_end|> text", "", "x " * 4000, "You are a coder."]
    for text in [*texts, *texts]:
        assert renderer.count_repeated(text) == renderer.count(text) == len(renderer.encode(text))
