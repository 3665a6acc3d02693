"""Texts on which the engine would crash are refused before it gets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import CHATML
from journeyman.errors import InputError
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.models.pre_tokenizers import PRE_TOKENIZERS
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.rendering.runs import RunLimit
from journeyman.serving.errors import RequestError
from journeyman.serving.prompts import PromptCheck
from vocabularies import byte_vocabulary, engine_of, named, spm_vocabulary, tokenizer_in, write_vocabulary

RECURSING = [name for name, split in PRE_TOKENIZERS.items() if split.recurses]
RUNS = ["a", "\u65e5", "\n", " \n", "!", "a\u0301", "1"]


def _limit(name: str) -> RunLimit:
    return RunLimit(TokenizerData("gpt2", name, [], [], []))


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_only_what_the_engine_matches_as_one_piece_is_too_long(name: str) -> None:
    limit = _limit(name)
    assert limit.exceeded_by("word. 12 " * 20_000 + "\n\n") is None
    assert limit.exceeded_by("x" * 8_000) is None
    long = max(limit.exceeded_by(run * 20_000) or 0 for run in RUNS)
    assert (long >= 20_000) == (name in RECURSING)


def test_sentences_are_one_piece_in_a_split_that_spans_words() -> None:
    assert _limit("exaone-moe").exceeded_by("word word " * 2_000) == 20_000 - 1
    assert _limit("tekken").exceeded_by("word word " * 2_000) is None


def test_a_sentencepiece_tokenizer_has_no_limit() -> None:
    assert RunLimit(spm_vocabulary(["ab"])).exceeded_by("a" * 100_000) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURSING)
def test_the_engine_survives_what_is_let_through(name: str, tmp_path: Path) -> None:
    tokens, types = byte_vocabulary(["a a"])
    path = write_vocabulary(tmp_path / "m.gguf", "gpt2", tokens, types, pre=name, merges=["a a"], extend=named())
    tokenizer = tokenizer_in(path)
    limit = _limit(name)
    with engine_of(path) as engine_ids:
        for run in RUNS:
            text = run * (8_000 // len(run))
            assert limit.exceeded_by(text) is None
            assert engine_ids(text) == tokenizer.encode(text)


def test_rows_and_requests_with_more_are_refused(tmp_path: Path) -> None:
    tokens, types = byte_vocabulary(["a a"], ["<|im_start|>", "<|im_end|>"])
    path = write_vocabulary(
        tmp_path / "m.gguf", "gpt2", tokens, types, pre="tekken", merges=["a a"], template=CHATML, extend=named()
    )
    renderer, check = Renderer(GgufFile(path)), PromptCheck(GgufFile(path))
    turn = {"role": "user", "content": "x" * 9_000}
    with pytest.raises(InputError, match=r"9,00\d characters in a row are one piece of text, on which the engine"):
        renderer.prompt_ids([Message(role="user", content=turn["content"])])
    with pytest.raises(RequestError, match=r"9,00\d characters in a row are one piece of text"):
        check.refuse_lost([turn], [])
    check.refuse_lost([{**turn, "content": "x" * 7_000}], [])
