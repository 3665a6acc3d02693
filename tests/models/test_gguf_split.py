"""A split model reads as the whole one does, is one model for every command, and a wrong set ends in one error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from conftest import log_row, write_tiny_gguf
from journeyman.artifacts import hash_of_file, read_json
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.model_files import find_by_hash, hash_of_model, parts_of, size_of_model
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import base_at_hand, find_base
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.training.lora import Adapter
from journeyman.training.merge import write_merged
from journeyman.verifying import verify
from split_model import write_split
from test_pipeline import call


@pytest.fixture
def parts(tiny_gguf: Path, tmp_path: Path) -> list[Path]:
    (tmp_path / "split").mkdir()
    return write_split(tiny_gguf, tmp_path / "split" / "m.gguf", 8)


@pytest.mark.parametrize(("tensors", "small_first"), [(8, False), (1, False), (8, True)])
def test_it_reads_as_the_whole_model(tensors: int, small_first: bool, tiny_gguf: Path, tmp_path: Path) -> None:
    parts = write_split(tiny_gguf, tmp_path / "m.gguf", tensors, small_first=small_first)
    whole, split = GgufFile(tiny_gguf), GgufFile(parts[0])
    assert list(split.parts) == parts == parts_of(parts[0]) and len(parts) > 2
    assert split.geometry == whole.geometry and split.tokenizer == whole.tokenizer
    for name in whole.tensors:
        np.testing.assert_array_equal(split.tensor(name), whole.tensor(name))
        np.testing.assert_array_equal(split.rows(name, 0, 1), whole.rows(name, 0, 1))
    assert split.ref().open().geometry == whole.geometry


def test_its_hash_covers_every_part_and_no_name(parts: list[Path], tmp_path: Path) -> None:
    before = hash_of_model(parts[0])
    assert before == GgufFile(parts[0]).sha256 != hash_of_file(parts[0])
    (tmp_path / "other").mkdir()
    for part in parts:
        shutil.copy(part, tmp_path / "other" / part.name.replace("m-", "renamed-"))
    copy = tmp_path / "other" / parts[0].name.replace("m-", "renamed-")
    assert hash_of_model(copy) == before and size_of_model(copy) == sum(part.stat().st_size for part in parts)
    assert find_by_hash(before, [tmp_path / "none.gguf", copy]) == copy
    with parts_of(copy)[-1].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert hash_of_model(copy) != before and find_by_hash(before, [copy, parts[0]]) == parts[0]
    parts[1].unlink()
    assert find_by_hash(before, parts[:1]) is None


def _remove(parts: list[Path]) -> Path:
    parts[1].unlink()
    return parts[0]


def _second(parts: list[Path]) -> Path:
    return parts[1]


def _other_name(parts: list[Path]) -> Path:
    return parts[0].rename(parts[0].with_name("m.gguf"))


def _swapped(parts: list[Path]) -> Path:
    shutil.copy(parts[2], parts[1])
    return parts[0]


def _other_count(parts: list[Path]) -> Path:
    shutil.copy(parts[0], other := parts[0].with_name("m-00001-of-00002.gguf"))
    return other


def _foreign_count(parts: list[Path]) -> Path:
    write_split(write_tiny_gguf(parts[0].with_name("t.gguf")), parts[0].with_name("n.gguf"), 4)
    shutil.copy(next(parts[0].parent.glob("n-00002-of-*.gguf")), parts[1])
    return parts[0]


def _foreign_tensors(parts: list[Path]) -> Path:
    """A part of a model with as many parts and more tensors."""
    whole = write_tiny_gguf(parts[0].with_name("t.gguf"), "qwen2")
    shutil.copy(write_split(whole, parts[0].with_name("n.gguf"), 11)[1], parts[1])
    return parts[0]


def _whole(parts: list[Path]) -> Path:
    return write_tiny_gguf(parts[0].with_name("w-00001-of-00002.gguf"))


def _truncated(parts: list[Path]) -> Path:
    parts[2].write_bytes(parts[2].read_bytes()[:-40])
    return parts[0]


WRONG: dict[str, tuple[Callable[[list[Path]], Path], str]] = {
    "a part is missing": (_remove, r"m-00001-of-00003\.gguf: 1 of its 3 parts are missing: m-00002-of-00003\.gguf"),
    "not the first part": (_second, r"part 2 of a model that is split into 3 files.*m-00001-of-00003\.gguf"),
    "the first part under another name": (_other_name, r"m\.gguf: part 1 of a model.*Rename the parts"),
    "a part twice": (_swapped, r"m-00002-of-00003\.gguf: split\.no is 2, not 1"),
    "a name with another count": (_other_count, r"named part 1 of 2, but its header says part 1 of 3"),
    "a part of a set of another count": (_foreign_count, r"m-00002-of-00003\.gguf: split\.count is \d+, not 3"),
    "a part of another model": (_foreign_tensors, r"m-00002-of-00003\.gguf: split\.tensors\.count is 26, not 20"),
    "a whole model named as a part": (_whole, r"w-00001-of-00002\.gguf: named as a part of a split model"),
    "a truncated part": (_truncated, r"m-00003-of-00003\.gguf: .*bytes are missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_set_is_refused_by_the_name_of_its_part(name: str, parts: list[Path]) -> None:
    change, why = WRONG[name]
    assert len(parts) == 3
    path = change(parts)
    with pytest.raises(InputError, match=why) as raised:
        GgufFile(path)
    assert "\n" not in raised.value.what + raised.value.remedy


def test_a_part_with_the_same_tensors_is_refused(parts: list[Path], tiny_gguf: Path, tmp_path: Path) -> None:
    """Sets of the same model that are split at other places: each part alone fits by number and counts."""
    other = write_split(tiny_gguf, tmp_path / "n.gguf", 9)
    assert len(other) == len(parts)
    shutil.copy(other[1], parts[1])
    with pytest.raises(InputError, match=r"tensor .* is also in m-0000"):
        GgufFile(parts[0])


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"split.tensors.count": 19}, r"split\.tensors\.count is 19, but its 3 parts have 20 tensors"),
        ({"split.count": 2}, r"header says part 1 of 2"),
        ({"split.no": 5}, r"header says part 6 of 3"),
    ],
)
def test_a_header_that_contradicts_the_set_is_refused(
    keys: dict[str, int], why: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    wrong = {key.replace(".", "_"): value for key, value in keys.items()}
    parts = write_split(tiny_gguf, tmp_path / "m.gguf", 8, **wrong)
    with pytest.raises(InputError, match=why):
        GgufFile(parts[0])


def test_merging_an_adapter_reads_every_part(parts: list[Path], tiny_gguf: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"lora": {"rank": 2, "alpha": 4}})
    for name, path in (("whole", tiny_gguf), ("split", parts[0])):
        base = GgufFile(path)
        adapter = Adapter(base.geometry, config.lora, seed=1)
        with torch.no_grad():
            for value in adapter.parameters.values():
                value.fill_(0.01)
        write_merged(base, adapter, GGMLQuantizationType.F16, tmp_path / f"{name}.gguf")
    whole, split = (GgufFile(tmp_path / f"{name}.gguf") for name in ("whole", "split"))
    assert whole.metadata == split.metadata and whole.tensors.keys() == split.tensors.keys()
    for tensor in whole.tensors:
        np.testing.assert_array_equal(split.tensor(tensor), whole.tensor(tensor))


def test_a_folder_with_one_model_is_that_model(parts: list[Path], tmp_path: Path) -> None:
    assert find_base("split", tmp_path) == parts[0] == base_at_hand("split", tmp_path)
    (tmp_path / "split" / "mmproj-m-f16.gguf").touch()
    assert find_base("split", tmp_path) == parts[0]
    write_tiny_gguf(tmp_path / "split" / "a.gguf")
    with pytest.raises(InputError, match=r"2 models: a\.gguf \(0\.00 GB\), m-00001-of-00003\.gguf \(0\.00 GB\)"):
        find_base("split", tmp_path)
    assert base_at_hand("split", tmp_path) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"contains no \.gguf file and no config\.json"):
        find_base("empty", tmp_path)
    (tmp_path / "empty" / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"contains safetensors, but no config\.json"):
        find_base("empty", tmp_path)


def test_a_folder_without_the_first_part_names_it(parts: list[Path], tmp_path: Path) -> None:
    parts[0].unlink()
    with pytest.raises(InputError, match=r"no file .*m-00001-of-00003\.gguf"):
        find_base("split", tmp_path)


def test_a_run_on_a_split_base(
    make_run: Callable[..., Path], parts: list[Path], tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [log_row(i) for i in range(40)]
    whole, split = make_run(rows=rows, name="whole"), make_run(rows=rows, name="split-run")
    here = f"base.model={parts[0].parent}"
    assert call("run", "--dir", whole, "--until", "evaluate") == 0
    assert call("run", "--dir", split, "--set", here, "--until", "evaluate") == 0
    results = [read_json(folder / "05-evaluation" / "manifest.json")["result"] for folder in (whole, split)]
    assert hash_of_file(whole / "04-adapter" / "adapter.gguf") == hash_of_file(split / "04-adapter" / "adapter.gguf")
    for one in ("base", "tuned"):
        arms = [result["roles"]["coder"]["arms"][one]["success"] for result in results]
        assert arms[0] == arms[1]
    served = results[1]["files"]["tuned"]
    assert served["sha256"] == hash_of_model(parts[0]) and served["identical_prompts"] == results[1]["rows"]
    assert served["size_gb"] == size_of_model(parts[0]) / 1e9

    assert call("run", "--dir", split, "--set", here) in (0, 3)
    assert call("export", "--dir", split, "--set", here, "--override", "a test") == 3
    bundle = split / "07-bundle"
    made = read_json(bundle / "manifest.json")["result"]
    assert made["base_file"] == "base-00001-of-00003.gguf" and not (bundle / "base.gguf").exists()
    assert hash_of_model(bundle / made["base_file"]) == made["base_sha256"] == served["sha256"]
    assert f"--model {made['base_file']} " in (bundle / "llama-server.sh").read_text()
    assert not list(bundle.glob("Modelfile*")) and "split into 3 files" in (bundle / "README.md").read_text()
    assert verify(split).findings == []
    adapters = {"all": bundle / "adapter.gguf"}
    with running_engine(EngineSettings(bundle / made["base_file"], adapters, 512, 2, 0.0)) as engine:
        messages = [Message(role="user", content="Task: x")]
        assert engine.prompt_ids(messages) == Renderer(GgufFile(tiny_gguf)).prompt_ids(messages)

    capsys.readouterr()
    assert call("evaluate", "--dir", split, "--set", here) == 0
    assert "unchanged" in capsys.readouterr().err
    with parts[2].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert any("m-00001-of-00003.gguf" in one for one in verify(split).findings)
    parts[2].unlink()
    assert any("a part of it is no longer there" in one for one in verify(split).notes)
    (bundle / "base-00003-of-00003.gguf").unlink()
    assert call("serve", "--dir", split, "--port", "0") == 1 and "base-00003" in capsys.readouterr().err
