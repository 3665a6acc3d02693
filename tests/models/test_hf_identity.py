"""Which files of a folder are the base, how it is named, and what identifies it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.model_files import copy_model, find_by_hash, hash_of_model, is_complete, parts_of, size_of_model
from journeyman.models.hf_folder import HfFolder
from journeyman.models.opening import base_at_hand, find_base, open_base
from test_hf_hostile import INDEX, SECOND, WEIGHTS, split
from tiny_families import save_folder, transformers_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(transformers_model("qwen3"), tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def test_what_it_is_called_and_the_same_in_a_worker(folder: Path, tmp_path: Path) -> None:
    for name in ("model", "model/", str(folder), "model/config.json"):
        assert find_base(name, tmp_path) == folder == base_at_hand(name, tmp_path)
    base = open_base(folder)
    sent = pickle.dumps(base.ref())
    opened = pickle.loads(sent).open()
    assert isinstance(opened, HfFolder) and len(sent) < 500
    assert (opened.geometry, opened.sha256, opened.path) == (base.geometry, base.sha256, folder)


def test_a_gguf_file_in_the_folder_comes_first(folder: Path, tmp_path: Path) -> None:
    """llama.cpp's script writes it there."""
    file = write_tiny_gguf(folder / "model-F16.gguf")
    assert find_base("model", tmp_path) == file
    assert find_base("model/config.json", tmp_path) == folder
    write_tiny_gguf(folder / "model-Q8_0.gguf")
    with pytest.raises(InputError, match=r"2 models.*or .*config\.json for the original weights"):
        find_base("model", tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, INDEX])
def test_a_part_is_not_the_model(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).touch()
    with pytest.raises(InputError, match=r"is a part of a model\. Name its folder"):
        find_base(f"model/{name}", tmp_path)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("adapter_config.json", "contains an adapter and no model"),
        ("model_index.json", "makes pictures"),
        ("model.safetensors", r"safetensors, but no config\.json"),
        ("pytorch_model.bin", r"pickled weights, but no config\.json"),
        ("README.md", r"no \.gguf file and no config\.json"),
    ],
)
def test_folders_of_something_else(file: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / file).touch()
    with pytest.raises(InputError, match=why):
        find_base("other", tmp_path)


def test_the_hash_is_of_all_that_is_read_and_of_nothing_else(folder: Path) -> None:
    before = hash_of_model(folder)
    for name in (
        "README.md",
        "LICENSE",
        "training_args.bin",
        "modeling.py",
        "consolidated.safetensors",
        ".gitattributes",
    ):
        (folder / name).write_text("something")
    (folder / "original").mkdir()
    assert hash_of_model(folder) == before == open_base(folder).sha256
    read = ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]
    assert [one.name for one in parts_of(folder)] == sorted([*read, "generation_config.json"])
    seen = {before}
    for name in (*read, "generation_config.json", "chat_template.jinja", "added_tokens.json"):
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        path.write_bytes(content + b" ")
        seen.add(hash_of_model(folder))
        path.write_bytes(content) if content else path.unlink()
    assert len(seen) == 8 and hash_of_model(folder) == before


def test_the_parts_of_a_split_model_belong_to_it(folder: Path) -> None:
    split(folder)
    assert {INDEX, SECOND} < {one.name for one in parts_of(folder)} and is_complete(folder)
    before = hash_of_model(folder)
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes() + b" ")
    assert hash_of_model(folder) != before
    (folder / SECOND).unlink()
    assert not is_complete(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 9999, '{"weight_map": {"a": "../../secret", "b": 7, "c": "/etc/passwd"}}']
)
def test_a_damaged_index_names_no_files(content: str, folder: Path) -> None:
    (folder / INDEX).write_text(content)
    assert {one.parent for one in parts_of(folder)} == {folder}
    assert {one.name for one in parts_of(folder)} >= {INDEX, WEIGHTS}


def test_a_copy_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("something")
    copied = copy_model(folder, tmp_path / "copy")
    assert copied == tmp_path / "copy" and not (copied / "README.md").exists()
    assert hash_of_model(copied) == hash_of_model(folder) and size_of_model(copied) == size_of_model(folder)
    assert find_by_hash(hash_of_model(folder), [tmp_path / "none", copied]) == copied
    assert open_base(copied).geometry == open_base(folder).geometry


def test_the_tokenizer_is_read(folder: Path) -> None:
    data = open_base(folder).tokenizer
    assert data.tokens is not None and data.tokens[1] == "<|begin|>" and (data.begin_id, data.end_id) == (1, 2)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    assert open_base(folder).tokenizer.chat_template == "{{ messages }}"
