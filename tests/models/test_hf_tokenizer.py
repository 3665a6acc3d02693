"""Tokenizers of Hugging Face folders: the data are those that llama.cpp's converter writes, bad ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import pre_tokenizers

from converting import convert, scripts
from hf_folders import FOLDERS, TEMPLATE, byte_level, sentencepiece, write_json
from hostile_texts import HOSTILE, REAL
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.models.hf_tokenizer import tokenizer_of_folder
from journeyman.models.sentencepiece_model import pieces_of
from journeyman.rendering.tokenizer import tokenizer_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("sentencepiece")
    parent = tmp_path_factory.mktemp("folders")
    return {kind: make(parent / kind) for kind, (_, make) in FOLDERS.items()}


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    scripts()
    target = tmp_path_factory.mktemp("converted")
    named = {kind: None if name == "default" else name for kind, (name, _) in FOLDERS.items()}
    convert([(folder, target / f"{kind}.gguf", named[kind]) for kind, folder in folders.items()])
    return {kind: target / f"{kind}.gguf" for kind in folders}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOLDERS)
def test_the_data_are_those_of_the_converted_file(
    kind: str, folders: dict[str, Path], converted: dict[str, Path]
) -> None:
    folder, file = tokenizer_of_folder(folders[kind]), GgufFile(converted[kind]).tokenizer
    assert folder.split == FOLDERS[kind][0] == file.split
    for name in (field.name for field in fields(file)):
        if name not in ("model_name", "more_end_ids"):  # the converter derives the name, and leaves out the ends
            assert getattr(folder, name) == pytest.approx(getattr(file, name)), name
    ours, theirs = tokenizer_of(folder, "folder"), tokenizer_of(file, "file")
    for text in [*REAL, *HOSTILE]:
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("kind", [kind for kind, (name, _) in FOLDERS.items() if name != "default"])
def test_ids_of_ordinary_texts_are_those_of_the_tokenizers_library(kind: str, folders: dict[str, Path]) -> None:
    """Only of ordinary ones: the engine knows no combining marks in tekken's split, for example."""
    ours = tokenizer_of(tokenizer_of_folder(folders[kind]), kind)
    theirs = HfTokenizer.from_file(str(folders[kind] / "tokenizer.json"))
    for text in [*REAL[:6], "<|begin|>a<|end|> <tool_call>b", "x\n\n  y\r\n\tz 12345"]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_end_and_template_come_from_every_file_that_may_hold_them(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    data = tokenizer_of_folder(folder)
    assert data.chat_template == TEMPLATE and data.tokens is not None
    assert (data.tokens[data.begin_id or 0], data.tokens[data.end_id or 0]) == ("<|begin|>", "<|end|>")
    write_json(folder, "generation_config.json", {"eos_token_id": [5, data.end_id, 6]})
    assert tokenizer_of_folder(folder).more_end_ids == [5, 6]
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    write_json(folder, "tokenizer_config.json", {"chat_template": named})
    write_json(folder, "special_tokens_map.json", {"eos_token": {"content": "<|user|>"}})
    data = tokenizer_of_folder(folder)
    assert data.chat_template == "d" and data.tokens is not None and data.tokens[data.end_id or 0] == "<|user|>"
    (folder / "special_tokens_map.json").unlink()
    assert tokenizer_of_folder(folder).end_id == 5
    (folder / "chat_template.jinja").write_text("d\n")
    assert tokenizer_of_folder(folder).chat_template == "d\n"
    (folder / "chat_template.jinja").write_text("another one")
    with pytest.raises(InputError, match=r"chat_template.jinja and the chat_template in tokenizer_config.json differ"):
        tokenizer_of_folder(folder)


def test_without_scores_a_sentencepiece_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["byte_fallback"] = True
    write_json(folder, "tokenizer.json", described)
    with pytest.raises(InputError, match=r"tokenizer.model is missing.* Download tokenizer.model"):
        tokenizer_of_folder(folder)


def _changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda described: described.update(changes)


def _model(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda described: described["model"].update(changes)


REFUSED: dict[str, Callable[[dict[str, Any]], None]] = {
    "tokenizers of the kind 'Unigram'": _model(type="Unigram"),
    "tokenizers of the kind 'WordPiece'": _model(type="WordPiece"),
    "tokenizers of the kind '\\[\\]'": _model(type=[]),
    "no tokenizer.json with a model": _changed(model=7),
    "the vocabulary is damaged": _model(vocab=[["a", 1]]),
    "the vocabulary is damaged:?": _model(vocab={"a": "b"}),
    "the merges are missing": _model(merges=None),
    "a merge is damaged": _model(merges=[["a", 1]]),
    "the normalizer .*Lowercase.* is not supported": _changed(normalizer={"type": "Lowercase"}),
    "the pre-tokenizer null without": _changed(pre_tokenizer=None),
    "the pre-tokenizer .*Whitespace": _changed(pre_tokenizer={"type": "Whitespace"}),
    "the pre-tokenizer .*add_prefix_space": _changed(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
    "the pre-tokenizer .*Split": _changed(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    ),
    "the pre-tokenizer .*Sequence": _changed(pre_tokenizer={"type": "Sequence", "pretokenizers": {}}),
    "with ignore_merges is not supported": _model(ignore_merges=True),
    "an added token is damaged": _changed(added_tokens=[{"id": "x", "content": "y"}]),
    "an added token is damaged:": _changed(added_tokens=[3]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_known_is_refused_by_name(reason: str, tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    described = json.loads((folder / "tokenizer.json").read_text())
    REFUSED[reason](described)
    write_json(folder, "tokenizer.json", described)
    with pytest.raises(InputError, match=reason):
        tokenizer_of_folder(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"a": NaN', "\ud800", "null"])
def test_a_file_that_is_no_json_object_is_refused(name: str, content: str, tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    (folder / name).write_text(content, errors="surrogatepass")
    with pytest.raises(InputError, match=name):
        tokenizer_of_folder(folder)


@pytest.mark.parametrize("size", [0, -1, 10**12, "many", 1.5, [1]])
def test_a_vocabulary_of_an_impossible_size_is_refused(size: Any, tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder, "config.json", {**config, "vocab_size": size})
    with pytest.raises(InputError, match="vocab_size is"):
        tokenizer_of_folder(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer.json with a model, and no tokenizer.model"):
        tokenizer_of_folder(tmp_path)


def test_ids_beyond_the_embeddings_are_left_out(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", [], regex=True)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder, "config.json", {**config, "vocab_size": 300})
    data = tokenizer_of_folder(folder)
    assert data.tokens is not None and len(data.tokens) == 300
    with pytest.raises(InputError, match="damaged"):  # merges name tokens that are gone
        tokenizer_of(data, "test")


def test_a_sentencepiece_model_is_read_without_its_library(folders: dict[str, Path]) -> None:
    spm = pytest.importorskip("sentencepiece")
    path = folders["llama2"] / "tokenizer.model"
    model = spm.SentencePieceProcessor(model_file=str(path))
    pieces = pieces_of(path)
    assert [piece.text for piece in pieces] == [model.id_to_piece(one) for one in range(model.get_piece_size())]
    assert [piece.score for piece in pieces] == [model.get_score(one) for one in range(model.get_piece_size())]
    assert [piece.kind == 6 for piece in pieces] == [model.is_byte(one) for one in range(model.get_piece_size())]
    assert [piece.kind == 3 for piece in pieces] == [model.is_control(one) for one in range(model.get_piece_size())]


def test_a_folder_with_only_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    folder = sentencepiece(tmp_path / "m", "LlamaForCausalLM", "llama")
    whole = tokenizer_of_folder(folder)
    assert whole.kind == "llama" and whole.adds_space and whole.adds_begin and (whole.begin_id, whole.end_id) == (1, 2)
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").unlink()
    (folder / "generation_config.json").unlink()
    bare = tokenizer_of_folder(folder)
    assert len(bare.tokens or ()) == len(pieces_of(folder / "tokenizer.model"))
    assert tokenizer_of(replace(bare, begin_id=1, end_id=2), "test").encode("a b")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"not one", b"\xff" * 40, b"\x0a\x02\x08\x01", b"\x0a\x03\x0a\x01\xff"],
)
def test_a_file_that_is_no_sentencepiece_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a SentencePiece model"):
        pieces_of(path)


def test_a_damaged_sentencepiece_model_never_crashes(folders: dict[str, Path], tmp_path: Path) -> None:
    data = (folders["llama2"] / "tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    for at in range(0, len(data), max(1, len(data) // 200)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            path.write_bytes(damaged)
            try:
                assert pieces_of(path)
            except InputError:
                pass


def test_the_splits_of_the_tests_are_those_that_the_library_writes() -> None:
    assert json.loads(pre_tokenizers.Digits(True).__getstate__()) == {"type": "Digits", "individual_digits": True}
