"""Pre-tokenizers: the engine cuts text under each name as training does."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from conftest import write_tiny_gguf
from hostile_texts import HOSTILE, REAL, mixtures
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.models.pre_tokenizers import OTHER_NAMES, PRE_TOKENIZERS, REFUSED
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.rendering.tokenizer import tokenizer_of
from journeyman.rendering.unicode_categories import _RANGES
from vocabularies import byte_vocabulary, engine_of, named, telling_vocabulary, tokenizer_in, write_vocabulary

MIXED = mixtures(150)
TEXTS = [*REAL, *HOSTILE, *MIXED]


@pytest.fixture(scope="module")
def telling() -> tuple[list[str], list[int], list[str]]:
    return telling_vocabulary([*TEXTS, *mixtures(1000, seed=2)])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PRE_TOKENIZERS, *OTHER_NAMES, None])
def test_the_engine_cuts_text_as_training_does(
    name: str | None, telling: tuple[list[str], list[int], list[str]], tmp_path: Path
) -> None:
    tokens, types, merges = telling
    path = write_vocabulary(tmp_path / "m.gguf", "gpt2", tokens, types, pre=name, merges=merges, extend=named())
    tokenizer = tokenizer_in(path)
    with engine_of(path) as engine_ids:
        for text in TEXTS if name in PRE_TOKENIZERS else TEXTS[: -len(MIXED) // 2]:
            ids = tokenizer.encode(text)
            assert engine_ids(text) == ids, f"{text!a}"
            assert tokenizer.count(text) == len(ids), f"{text!a}"


def test_the_vocabulary_tells_every_split_from_every_other_one(telling: tuple[list[str], list[int], list[str]]) -> None:
    tokens, types, merges = telling
    texts = [*TEXTS, *mixtures(300, seed=3)]
    seen: dict[str, str] = {}
    for name in PRE_TOKENIZERS:
        tokenizer = tokenizer_of(TokenizerData("gpt2", name, tokens, types, merges), "test")
        ids = str([tokenizer.encode(text) for text in texts])
        other = seen.setdefault(ids, name)
        one, same = PRE_TOKENIZERS[name], PRE_TOKENIZERS[other]
        equal = (one.passes, one.ignores_merges) == (same.passes, same.ignores_merges)
        assert equal or (name, other) == ("bailingmoe", "qwen2"), (name, other)  # written differently, with one meaning


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt-2", "deepseek-v3", "deepseek-coder"])
def test_characters_belong_to_the_categories_that_the_engine_has(name: str, tmp_path: Path) -> None:
    """At each end of each range. gpt-2 tells letters and numbers, the others marks, punctuation and symbols."""
    ends = {
        int(end, 16) + step
        for ranges in _RANGES.values()
        for one in ranges.split()
        for end in one.split("-")
        for step in (-1, 0, 1)
    }
    some = random.Random(1).sample(range(0x80, 0x110000), 4000)
    codes = sorted(code for code in ends | {*some} if not 0xD800 <= code < 0xE000)
    level = byte_vocabulary([])[0]
    merges = [f"{before} {byte}" for before in "a1!" for byte in sorted(level)[-255:] if len(byte) == 1]
    tokens, types = byte_vocabulary(merges)
    path = write_vocabulary(tmp_path / "m.gguf", "gpt2", tokens, types, pre=name, merges=merges, extend=named())
    tokenizer = tokenizer_in(path)
    texts = [
        "".join(f"a{chr(one)}\n1{chr(one)}\n!{chr(one)}\n" for one in codes[at : at + 50])
        for at in range(0, len(codes), 50)
    ]
    with engine_of(path) as engine_ids:
        for text in texts:
            assert engine_ids(text) == tokenizer.encode(text), f"{text!a}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "tekken", "chameleon", "qwen2", "gpt-4o", "glm4", "default"])
@pytest.mark.parametrize("says", [True, False, None])
def test_a_text_begins_as_it_does_in_the_engine(name: str, says: bool | None, tmp_path: Path) -> None:
    """`says`: whether the header says that a text begins with a token of its own."""
    tokens, types = byte_vocabulary(["a b"])

    def extend(writer: object) -> None:
        named()(writer)  # type: ignore[arg-type]
        if says is not None:
            writer.add_add_bos_token(says)  # type: ignore[attr-defined]

    template = "{{ messages[0].content }}<|end|>"
    path = write_vocabulary(
        tmp_path / "m.gguf", "gpt2", tokens, types, pre=name, merges=["a b"], template=template, extend=extend
    )
    renderer = Renderer(GgufFile(path))
    asked = [Message(role="user", content="ab 12")]
    with running_engine(EngineSettings(path, {}, 256, 1, 0.0)) as engine:
        assert engine.prompt_ids(asked) == renderer.prompt_ids(asked)


def _built(name: str, kind: str = "gpt2") -> None:
    tokens, types = byte_vocabulary([])
    tokenizer_of(TokenizerData(kind, name, tokens, types, []), "m.gguf")


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_need_more_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match=f"m.gguf: pre-tokenizer '{name}' {REFUSED[name]}"):
        _built(name)


@pytest.mark.parametrize("name", ["", "gpt-5", "a\nb\x1b[0m", "x" * 500])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"m.gguf: pre-tokenizer .* is not supported") as refused:
        _built(name)
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize("kind", ["t5", "bert", "rwkv", "plamo2", "gemma4", "whitespace", "hybriddna", "no_vocab"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(InputError, match=f"m.gguf: tokenizer kind '{kind}' is not supported"):
        _built("gpt-2", kind)


def test_every_expression_works_in_both_libraries() -> None:
    for name, split in PRE_TOKENIZERS.items():
        assert split.passes and not re.compile(split.cut).groups, name
        _built(name)


def test_a_header_without_a_name_means_default_and_not_gpt2(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    assert GgufFile(path).tokenizer.split == "gpt-2"
    tokens, types = byte_vocabulary([])
    path = write_vocabulary(tmp_path / "n.gguf", "gpt2", tokens, types, merges=["a b"], extend=named())
    assert GgufFile(path).tokenizer.split == "default"


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_long_runs_take_no_long_time(name: str) -> None:
    """No expression may need quadratic time, and none may fail at the limits of the regular expression library."""
    tokens, types = byte_vocabulary(["a a", "\u0120 \u0120"])
    tokenizer = tokenizer_of(TokenizerData("gpt2", name, tokens, types, ["a a", "\u0120 \u0120"]), "test")
    for text in ("a", "\u65e5", " ", "!", "1", " \n", "ab "):
        run = text * 20_000 + "x"
        assert tokenizer.count(run) == len(tokenizer.encode(run))
