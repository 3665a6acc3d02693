"""SentencePiece BPE: the ids are the engine's, for trained, random and real vocabularies."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gguf
import pytest

from conftest import example_of
from hostile_texts import HOSTILE, REAL, mixtures
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.rendering.tokenizer import tokenizer_of
from trained_spm import trained
from vocabularies import engine_of, spm_vocabulary, tokenizer_in, write_data, write_vocabulary

TEXTS = [*REAL, *HOSTILE, *mixtures(200)]
INSTRUCTIONS = ["[INST] a [/INST]b", "<s>[INST]x", "[INST][INST] [/INST]", " <sep> a<sep>b\n\n\nc", "</s> </s>x"]


def data_of(model: Any, user_defined: list[str], adds_space: bool) -> TokenizerData:
    ids = range(model.get_piece_size())
    tokens = [model.id_to_piece(one) for one in ids]
    types = [
        2 if model.is_unknown(one)
        else 3 if model.is_control(one)
        else 6 if model.is_byte(one)
        else 4 if tokens[one] in user_defined
        else 1
        for one in ids
    ]  # fmt: skip
    scores = [model.get_score(one) for one in ids]
    return TokenizerData(
        "llama", "default", tokens, types, None, 1, 2, adds_begin=True, scores=scores, adds_space=adds_space
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("adds_space", [True, False])
@pytest.mark.parametrize("across", [False, True])
def test_ids_of_trained_vocabularies_are_the_engines(kind: str, adds_space: bool, across: bool, tmp_path: Path) -> None:
    """`across`: tokens may hold spaces anywhere, and there are user-defined ones."""
    more = {"split_by_whitespace": False, "allow_whitespace_only_pieces": True, "split_digits": True}
    symbols = ["<sep>", "\n", "\n\n"] if across else []
    model = trained(kind, add_dummy_prefix=adds_space, user_defined_symbols=symbols, **(more if across else {}))
    path = write_data(tmp_path / "m.gguf", data_of(model, symbols, adds_space))
    tokenizer = tokenizer_in(path)
    with engine_of(path) as engine_ids:
        for text in [*TEXTS, *INSTRUCTIONS]:
            ids = tokenizer.encode(text)
            assert engine_ids(text) == ids, f"{text!a}"
            assert tokenizer.count(text) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_of_equal_scores_the_leftmost_pair_is_merged_as_in_the_engine(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    some = {"".join(rng.choices("ab\u2581<0xA>", k=rng.randrange(2, 6))) for _ in range(400)}
    some |= {first + second for first in "ab\u2581" for second in "ab\u2581"} | {"<0", "<0x", "<0x0", "<0x0A"}
    merged = sorted(some)
    data = spm_vocabulary(merged, [float(rng.randrange(-3, 1)) for _ in merged], adds_space=seed % 2 == 0)
    path = write_data(tmp_path / "m.gguf", data)
    tokenizer = tokenizer_in(path)
    texts = ["".join(rng.choices(["a", "b", " ", "<0x0A>", "<0x", "c", "aaa", "é"], k=40)) for _ in range(400)]
    with engine_of(path) as engine_ids:
        for text in texts:
            assert engine_ids(text) == tokenizer.encode(text), f"{text!a}"


GEMMA_TEXTS = [
    "<h1>a</h1></s><b>\n\n\n</b>", "<start_of_turn>user\nhi<end_of_turn>\n", "<unused5><bos><pad>[multimodal]",
    "\n" * 40, "  a", ">\u2581</ > </a", "\t" * 40, " " * 40, "\n \n  \n\n", "x</h1",
]  # fmt: skip


@pytest.mark.slow
def test_ids_of_gemma_are_the_engines(gemma: Path) -> None:
    tokenizer = tokenizer_in(gemma)
    with engine_of(gemma) as engine_ids:
        for text in [*TEXTS, *GEMMA_TEXTS, *mixtures(500, 7)]:
            ids = tokenizer.encode(text)
            assert engine_ids(text) == ids, f"{text!a}"
            assert tokenizer.count(text) == len(ids)


def _spm(**changes: Any) -> TokenizerData:
    return spm_vocabulary(["\u2581a", "ab", "\u2581ab"], **changes)


def test_a_text_that_continues_another_one_has_no_space_of_its_own() -> None:
    tokenizer = tokenizer_of(_spm(), "test")
    ids = {token: number for number, token in enumerate(_spm().tokens or ())}
    assert tokenizer.encode("ab") == [ids["\u2581ab"]]
    assert tokenizer.encode("ab", continues=True) == [ids["ab"]]
    assert tokenizer.encode("<s>ab", continues=True) == [ids["<s>"], ids["\u2581ab"]]
    assert tokenizer_of(_spm(adds_space=False), "test").encode("ab") == [ids["ab"]]


def test_decoding_gives_the_text_back() -> None:
    tokenizer = tokenizer_of(_spm(adds_space=False), "test")
    for text in (*HOSTILE, "ab a\u00e9\U0001f680 </s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@pytest.mark.slow
@pytest.mark.parametrize("header", ["<s>[INST] {} [/INST]", "{}</s>\n<s>assistant\n", "{}</s>:"])
@pytest.mark.parametrize("adds_space", [True, False])
def test_prompt_and_answer_are_the_ids_of_the_whole_text(header: str, adds_space: bool, tmp_path: Path) -> None:
    """An answer has the space prefix exactly if the engine would give it one after this prompt."""
    before, after = header.split("{}")
    template = (
        f"{{% for m in messages %}}{{% if m.role == 'user' %}}{before}{{{{ m.content }}}}{after}{{% else %}}"
        "{{ m.content }}</s>{% endif %}{% endfor %}"
    ).replace("\n", "{{ '\\n' }}")
    data = _spm(adds_space=adds_space)
    tokens, types = [*(data.tokens or ()), "[INST]", "[/INST]"], [*(data.types or ()), 3, 3]
    scores = [*(data.scores or ()), 0.0, 0.0]
    path = write_vocabulary(
        tmp_path / "m.gguf", "llama", tokens, types, scores=scores, template=template,
        extend=lambda writer: writer.add_add_space_prefix(adds_space),
    )  # fmt: skip
    renderer = Renderer(GgufFile(path))
    asked = [Message(role="user", content="ab ab")]
    with running_engine(EngineSettings(path, {}, 256, 1, 0.0)) as engine:
        prompt = engine.prompt_ids(asked)
    assert renderer.prompt_ids(asked) == prompt
    assert renderer.prompt_tokens(asked) == len(prompt)
    with engine_of(path) as engine_ids:
        whole = engine_ids(renderer.prompt_text(asked) + "ab a", add_special=True)
    whole = whole[1:] if whole[:2] == [1, 1] else whole
    assert prompt + renderer.encode("ab a") == whole
    assert renderer.count("ab a") == len(renderer.encode("ab a"))


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\\n' + m.content + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@pytest.mark.slow
def test_prompts_of_gemma_are_the_engines_and_begin_once(gemma: Path, tmp_path: Path) -> None:
    """Its vocabulary in a tiny model, with a template that writes the beginning itself."""
    data = GgufFile(gemma).tokenizer
    assert data.tokens is not None

    def extend(writer: gguf.GGUFWriter) -> None:
        writer.add_add_space_prefix(False)
        writer.add_bos_token_id(data.begin_id)
        writer.add_eos_token_id(list(data.tokens or ()).index("<end_of_turn>"))

    path = write_vocabulary(
        tmp_path / "m.gguf", "llama", data.tokens, data.types or (), pre="default", scores=data.scores,
        template=GEMMA_TEMPLATE, extend=extend,
    )  # fmt: skip
    renderer = Renderer(GgufFile(path))
    turns = [("user", "What's <b>2</b> + 2?\n\n  Say it."), ("assistant", "4"), ("user", "\tAnd\r\n<h1>3</h1>?")]
    asked = [Message(role=role, content=content) for role, content in turns]
    with running_engine(EngineSettings(path, {}, 256, 1, 0.0)) as engine:
        for messages in (asked[:1], asked):
            ids = renderer.prompt_ids(messages)
            assert engine.prompt_ids(messages) == ids
            assert ids.count(2) == 1 and ids[0] == 2 and renderer.prompt_tokens(messages) == len(ids)
    row = example_of(asked[:1], "It is\n\n<b>4</b>.")
    rendered = renderer.example(row)
    assert renderer.decode(rendered.ids[rendered.prompt_tokens :]) == "It is\n\n<b>4</b>.<end_of_turn>"
    with pytest.raises(InputError, match="contains the control token <end_of_turn>"):
        renderer.example(example_of(asked[:1], "x<end_of_turn>"))
