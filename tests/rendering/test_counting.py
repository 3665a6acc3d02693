"""Token counts without encoding equal those of the tokenizer, for every supported pre-tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.rendering.counting import TokenCounter
from journeyman.rendering.renderer import Renderer
from journeyman.rendering.tokenizer import tokenizer_of

PRE = ["gpt-2", "smollm", "llama-bpe", "qwen2"]
PIECES = st.sampled_from(
    ["a", "I'll", "'S", "don't", " ", "  ", "\n", "\n\n", "\t", "\r\n", "1", "42", " 7", ".", "...", "é", "—", "😀",
     "<|im_end|>",
     "def f(x):", "_", "\x1c", "\x0b", "\u00a0", "日本", "١", "²", "½", "Ⅷ"]
)  # fmt: skip


def _counter(name: str) -> tuple[TokenCounter, Any]:
    # Merges within and across character classes: which one applies depends on where a piece ends.
    merges = ["a a", "1 1", "Ġ Ġ", "Ċ Ċ", ". .", "Ġ a", "4 2", "Ġ 1", "I '", "l l", "ĊĊ Ċ", ". Ċ"]
    vocab = [*sorted(ByteLevel.alphabet()), *(pair.replace(" ", "") for pair in merges), "<|im_end|>"]
    tokenizer = tokenizer_of(TokenizerData("gpt2", name, vocab, [1] * (len(vocab) - 1) + [3], merges), "test")
    return TokenCounter(tokenizer, name, ["<|im_end|>"]), tokenizer


@pytest.mark.parametrize("name", PRE)
@settings(max_examples=600, deadline=None)
@given(parts=st.lists(PIECES | st.text(max_size=4), max_size=14))
def test_counts_equal_the_tokenizer(name: str, parts: list[str]) -> None:
    counter, tokenizer = _counter(name)
    text = "".join(parts)
    assert counter.count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_counts_of_rendered_prompts_equal_the_renderer(renderer: Renderer) -> None:
    from journeyman.records import Message

    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Sum 12 + 345?\n\nÜber—all")]
    assert renderer.prompt_tokens(messages) == len(renderer.prompt_ids(messages))


def test_a_text_that_comes_again_has_the_count_of_the_first_time(embedded: GgufFile) -> None:
    renderer = Renderer(embedded)
    texts = ["You are a coder.", "naïve <|im_end|> text", "", "x " * 4000, "You are a coder."]
    for text in [*texts, *texts]:
        assert renderer.count_repeated(text) == renderer.count(text) == len(renderer.encode(text))
