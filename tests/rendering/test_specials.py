"""Special tokens are split off a text as in the engine, which corrects their types by name."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.models.base import TokenizerData
from journeyman.rendering.any_of import any_of
from journeyman.rendering.control import ControlTokens
from journeyman.rendering.specials import SpecialTokens
from journeyman.rendering.token_types import control_texts, special_tokens
from journeyman.rendering.tokenizer import tokenizer_of
from vocabularies import byte_vocabulary, engine_of, spm_vocabulary, tokenizer_in, write_vocabulary

CONTROL, USER_DEFINED = 3, 4
VOCABULARIES = {
    "nested": ["<a>", "<a><b>", "<b>", "b><c"],
    "overlapping": ["<s>", "s>xx", "xxyyz", "yyz<s>x"],
    "runs": ["  ", "    ", "   ", "\n", "\n\n\n", "\n\n", "\t", "\t\t"],
    "of several scripts": ["<\uff5cend\uff5c>", "\u2581\u2581", "\u65e5", "\u65e5\u65e5\u65e5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VOCABULARIES)
def test_special_tokens_are_split_off_as_in_the_engine(name: str, tmp_path: Path) -> None:
    special = VOCABULARIES[name]
    tokens, types = byte_vocabulary(["a b"], special)
    path = write_vocabulary(
        tmp_path / "m.gguf", "gpt2", tokens, types, pre="gpt-2", merges=["a b"],
        extend=lambda writer: (writer.add_bos_token_id(9), writer.add_eos_token_id(9)),
    )  # fmt: skip
    tokenizer = tokenizer_in(path)
    rng = random.Random(0)
    parts = [*special, *(token[1:] for token in special), *(token[:-1] for token in special), "ab", " ", "\n", "x"]
    with engine_of(path) as engine_ids:
        for _ in range(400):
            text = "".join(rng.choices(parts, k=12))
            assert engine_ids(text) == tokenizer.encode(text), f"{text!a}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Phi-3 mini", "my-phi3-tune", "PHI-3.5", "Phi 3 Mini", "modern-bert-decoder"])
def test_white_space_around_special_tokens_is_lost_as_in_the_engine(name: str, tmp_path: Path) -> None:
    """For some models, whose name decides."""
    data = spm_vocabulary(["\u2581a", "aa"])
    special = ["<|endoftext|>", "<|user|>", "<|end|>", "[MASK]"]
    tokens, types = [*(data.tokens or ()), *special], [*(data.types or ()), *[CONTROL] * len(special)]
    scores = [*(data.scores or ()), *[0.0] * len(special)]

    def extend(writer: gguf.GGUFWriter) -> None:
        writer.add_name(name)

    path = write_vocabulary(tmp_path / "m.gguf", "llama", tokens, types, scores=scores, extend=extend)
    tokenizer = tokenizer_in(path)
    rng = random.Random(0)
    parts = [*special, "<s>", "</s>", "<unk>", " ", "\n", "\t", "\v", "\u00a0", "a", "  aa", "\r\n"]
    with engine_of(path) as engine_ids:
        for _ in range(400):
            text = "".join(rng.choices(parts, k=12))
            ids = tokenizer.encode(text)
            assert engine_ids(text) == ids, f"{text!a}"
            assert tokenizer.count(text) == len(ids)


TYPED_WRONGLY = {
    "ends": ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<eos>", "[EOS]"],
    "fill-in": ["<|fim_prefix|>", "<SUF>", "<fim_middle>", "[PAD]", "<REPO>", "<|file_sep|>"],
    "channels": ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>"],
    "tool responses": ["<|tool_response>", "</s>", "<turn|>"],
    "none of them": ["<|im_start|>", "<tool_call>", "<|user|>", "</b>", "<|ends|>"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPED_WRONGLY)
@pytest.mark.parametrize("kind", [1, 3, 4, 5])
def test_types_are_corrected_as_in_the_engine(name: str, kind: int, tmp_path: Path) -> None:
    special = TYPED_WRONGLY[name]
    tokens, types = byte_vocabulary(["a b"], special)
    types[: len(special)] = [kind] * len(special)
    path = write_vocabulary(
        tmp_path / "m.gguf", "gpt2", tokens, types, pre="gpt-2", merges=["a b"],
        extend=lambda writer: (writer.add_bos_token_id(99), writer.add_eos_token_id(99)),
    )  # fmt: skip
    tokenizer = tokenizer_in(path)
    with engine_of(path) as engine_ids:
        for token in special:
            assert engine_ids(f"ab{token} ab") == tokenizer.encode(f"ab{token} ab"), token


def _data(special: dict[str, int], template: str | None = None) -> TokenizerData:
    tokens, types = byte_vocabulary([], list(special))
    types[: len(special)] = special.values()
    return TokenizerData("gpt2", "gpt-2", tokens, types, [], chat_template=template)


def test_user_defined_tokens_count_as_control_tokens_if_the_template_writes_them() -> None:
    special = {
        "<think>": 4,
        "<h1>": 4,
        "  ": 4,
        "<|box|>": 4,
        "<unk>": 2,
        "<|user|>": 3,
        "<div>": 1,
        "<0x0A>": 6,
        "x": 5,
    }
    data = _data(special, "{{ '<think>' }}")
    assert ControlTokens(data).texts == ["<think>", "<|box|>", "<unk>", "<|user|>"]
    assert special_tokens(data) == ["<think>", "<h1>", "  ", "<|box|>", "<unk>", "<|user|>"]
    assert "<h1>" in control_texts(replace(data, chat_template=None)), "without a template, all of them count"


def test_of_two_overlapping_tokens_of_one_length_neither_is_guessed() -> None:
    with pytest.raises(InputError, match="the tokens '<ab' and 'b>c' overlap"):
        tokenizer_of(_data({"<ab": 3, "b>c": 3}), "test")
    assert tokenizer_of(_data({"<ab>": 3, "b>c": 3}), "test")


@given(st.lists(st.text("ab<|", min_size=1, max_size=4), max_size=12), st.text("ab<|", max_size=12))
def test_one_expression_for_many_texts_matches_the_longest(texts: list[str], text: str) -> None:
    one_by_one = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
    assert any_of(texts).findall(text) == one_by_one.findall(text)


def test_hundreds_of_texts_that_begin_each_other_are_one_expression() -> None:
    texts = ["a" * length for length in range(1, 900)]
    assert any_of(texts).findall("a" * 1000 + "b") == ["a" * 899, "a" * 101]


def test_thousands_of_special_tokens_take_no_long_time() -> None:
    """Gemma has 6,400. Both a text full of their first character and many tokens that could overlap must be quick."""
    tokens = {f"<unused{number}>": number for number in range(20_000)} | {" " * n: n for n in range(1, 60)}
    specials = SpecialTokens(tokens)
    assert len(specials.split("< " * 50_000 + "<unused77>")) == 100_001
    many = {f"<{number:06}<": number for number in range(20_000)}
    with pytest.raises(ValueError, match="overlap"):
        SpecialTokens(many)
    with pytest.raises(ValueError, match="1 special tokens with up to 5,000 characters"):
        SpecialTokens({"x" * 5000: 1})
