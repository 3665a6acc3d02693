"""Names of models that are downloaded from a hub: what is downloaded, once, and pinned. The hub is hub_server.py's.

test_hub_faults.py: what can go wrong.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hub_reporter import Recorder
from hub_server import HubServer
from journeyman.config import load_config
from journeyman.errors import InputError
from journeyman.manifests import PlanManifest
from journeyman.model_files import hash_of_model
from journeyman.models.hub import find_model
from journeyman.models.names import NotDownloaded, name_of
from journeyman.models.opening import base_at_hand, find_base, open_base
from journeyman.runs import Run, typed_result
from split_model import write_split
from test_pipeline import call

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
GGUF = "bartowski/Coder-GGUF"
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
INDEX_NAME = "model.safetensors.index.json"
INDEX = {"metadata": {"total_size": 3000}, "weight_map": {f"layer.{n}": SHARDS[n % 3] for n in range(9)}}
WANTED = {
    **{name: bytes([number]) * 1000 for number, name in enumerate(SHARDS)},
    INDEX_NAME: json.dumps(INDEX).encode(),
    "config.json": b'{"architectures": ["Qwen2ForCausalLM"]}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"Apache License",
}
UNWANTED = {
    "README.md": b"# Qwen",
    ".gitattributes": b"",
    "pytorch_model.bin": b"pickle",
    "modeling_qwen.py": b"import os",
    "tokenizer_extra.py": b"import os",
    "consolidated.safetensors": b"the same weights again",
    "onnx/model.onnx": b"onnx",
    "original/model.safetensors": b"original",
    "chat_template.py": b"",
    "LICENSE.bin": b"pickle",
}


def find(name: str, folder: Path, reporter: Recorder | None = None) -> Path:
    return find_base(name, folder, reporter or Recorder())


def test_the_string_of_a_config_file_is_downloaded_once(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add(CODER, WANTED | UNWANTED)
    (tmp_path / "journeyman.toml").write_text('[base]\nmodel = "Qwen/Qwen2.5-Coder-7B-Instruct"\n')
    config = load_config(tmp_path / "journeyman.toml", [])
    with pytest.raises(NotDownloaded, match="journeyman run downloads it"):
        find_base(config.base.model, tmp_path)
    assert base_at_hand(config.base.model, tmp_path) is None and hub.seen == []
    reporter = Recorder()
    Run(tmp_path, config).fetch_base(reporter)
    folder = find_base(config.base.model, tmp_path)
    assert folder.is_dir() and folder.name == commit and folder == base_at_hand(config.base.model, tmp_path)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")} == WANTED
    size = sum(map(len, WANTED.values()))
    assert reporter.said[0].startswith(f"downloading {CODER} from {hub.endpoint}, revision main (commit {commit[:12]})")
    assert f"{len(WANTED)} files, {size:,} B" in reporter.said[0] and "already" not in reporter.said[0]
    assert reporter.begun == [("download", size, "bytes")] and reporter.done[-1] == size
    assert reporter.done == sorted(reporter.done)
    asked = len(hub.seen)
    Run(tmp_path, config).fetch_base(reporter)
    assert find(config.base.model, tmp_path) == folder and len(hub.seen) == asked and len(reporter.begun) == 1


def test_the_record_names_commit_sizes_and_hashes(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add(CODER, WANTED, "v1")
    find(f"{CODER}@v1", tmp_path)
    (record,) = (tmp_path / "home/.cache/journeyman/hub" / f"models--{CODER.replace('/', '--')}" / "pins").iterdir()
    read = json.loads(record.read_text())
    assert {key: read[key] for key in ("repo", "revision", "commit", "endpoint", "folder")} == {
        "repo": CODER, "revision": "v1", "commit": commit, "endpoint": hub.endpoint, "folder": True,
    }  # fmt: skip
    by_name = {one["name"]: one for one in read["files"]}
    shard = by_name[SHARDS[0]]
    assert shard["size"] == 1000 and shard["sha256"] == hashlib.sha256(WANTED[SHARDS[0]]).hexdigest()
    assert by_name.keys() == WANTED.keys()


def test_a_run_downloads_before_any_stage_and_later_needs_no_hub(
    hub: HubServer, tiny_gguf: Path, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The fingerprint is the file's hash: neither the name nor another place of the same file makes a stage stale."""
    hub.add(GGUF, {"m-Q4_K_M.gguf": tiny_gguf.read_bytes(), "m-Q8_0.gguf": b"other"})
    run = make_run()
    config = run / "journeyman.toml"
    config.write_text(config.read_text().replace(str(tiny_gguf), f"{GGUF}:Q4_K_M"))
    call("status", "--dir", run)
    assert hub.seen == [], "looking downloads nothing"
    capsys.readouterr()
    assert call("run", "--dir", run, "--until", "plan") == 0
    lines = capsys.readouterr().err.splitlines()
    places = [
        next(n for n, line in enumerate(lines) if text in line) for text in ("downloading", "01 ingest", "03 plan")
    ]
    assert places == sorted(places)
    assert typed_result(run, "plan", PlanManifest).base_path.endswith("/m-Q4_K_M.gguf")
    asked = len(hub.seen)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert call("plan", "--dir", run) == 0
    assert call("plan", "--dir", run, "--set", f"base.model={tiny_gguf}") == 0
    said = capsys.readouterr().err
    assert said.count("03 plan      unchanged") == 2 and len(hub.seen) == asked


def test_a_base_that_cannot_be_used_fails_before_any_stage(
    hub: HubServer, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(GGUF, {"m-Q4_K_M.gguf": b"no GGUF file"})
    run = make_run()
    assert call("run", "--dir", run, "--set", f"base.model={GGUF}:Q4_K_M", "--until", "plan") == 1
    assert "m-Q4_K_M.gguf" in capsys.readouterr().err and not list(run.glob("0*"))


@pytest.mark.parametrize("name", [f"{GGUF}:q4_k_m", f"{GGUF}/q4/m-Q4_K_M-00001-of-00003.gguf"])
def test_a_split_model_comes_with_all_parts(name: str, hub: HubServer, tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    parts = write_split(tiny_gguf, tmp_path / "made" / "m-Q4_K_M.gguf", 8)
    others = {"m-Q8_0.gguf": b"other", "mmproj-m-Q4_K_M.gguf": b"projector"}
    hub.add(GGUF, {f"q4/{part.name}": part.read_bytes() for part in parts} | others)
    path = find(name, tmp_path)
    assert path.name == parts[0].name and open_base(path).sha256 == hash_of_model(parts[0])
    assert sorted(one.name for one in path.parent.iterdir()) == [part.name for part in parts]
    assert not list(path.parent.parent.glob("*.gguf"))


def test_what_a_name_means(hub: HubServer, tmp_path: Path) -> None:
    small, large = b"s" * 6_000_000, b"l" * 16_000_000
    hub.add(GGUF, {"m-Q4_K_M.gguf": small, "m-Q8_0.gguf": large, "mmproj-m.gguf": b"p", "m-imatrix.gguf": b"i"})
    with pytest.raises(
        InputError, match=r"2 models could be meant: m-Q4_K_M.gguf \(0\.01 GB\), m-Q8_0.gguf \(0\.02"
    ) as e:
        find(GGUF, tmp_path)
    assert e.value.remedy == f"Name one: {GGUF}/m-Q4_K_M.gguf"
    with pytest.raises(InputError, match=r"has no quantization Q5_K_M; it has m-Q4_K_M.gguf \(0\.01 GB\), m-Q8"):
        find(f"{GGUF}:Q5_K_M", tmp_path)
    with pytest.raises(InputError, match=r"has no quantization Q4_K; it has"):
        find(f"{GGUF}:Q4_K", tmp_path)
    with pytest.raises(InputError, match=r"has no n\.gguf; it has m-Q4_K_M\.gguf"):
        find(f"{GGUF}/n.gguf", tmp_path)
    assert hub.asked("storage") == []
    hub.add("a/one-GGUF", {"only.gguf": b"one"})
    assert find("a/one-GGUF", tmp_path).read_bytes() == b"one"
    hub.add("a/both", WANTED | {"m-Q4_K_M.gguf": b"four", "m-Q8_0.gguf": b"eight"})
    assert find("a/both", tmp_path).is_dir()
    assert find("a/both:Q8_0", tmp_path).read_bytes() == b"eight"
    assert find("a/both/m-Q4_K_M.gguf", tmp_path).read_bytes() == b"four"


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        ({"README.md": b""}, "a/b", "contains no .gguf file and no safetensors"),
        ({"pytorch_model.bin": b"", "config.json": b"{}"}, "a/b", "it contains .bin files"),
        (WANTED, "a/b:Q4_K_M", "contains no .gguf file; it contains .safetensors files"),
        ({"adapter_model.safetensors": b"", "adapter_config.json": b"{}"}, "a/b", "contains an adapter, not a model"),
        ({"model.safetensors": b""}, "a/b", "safetensors without config.json"),
        ({"config.json": b"{}", "consolidated.safetensors": b""}, "a/b", "neither model.safetensors nor"),
        ({name: WANTED[name] for name in WANTED if name != SHARDS[1]}, "a/b", f"{SHARDS[1]} is missing in the repo"),
        (WANTED | {INDEX_NAME: b"{"}, "a/b", "is damaged"),
        (WANTED | {INDEX_NAME: b'{"weight_map": {"a": "../x.safetensors"}}'}, "a/b", "not a file next to it"),
        (WANTED | {INDEX_NAME: b'{"weight_map": {}}'}, "a/b", "names no files"),
        ({"m-Q4_K_M-00001-of-00002.gguf": b""}, "a/b", "m-Q4_K_M-00002-of-00002.gguf is missing in the repo"),
        ({f"m-0000{n}-of-00002.gguf": b"" for n in (1, 2)}, "a/b/m-00002-of-00002.gguf", "a later part of a split"),
        ({"../../m-Q4_K_M.gguf": b"", "a\\m-Q4_K_M.gguf": b"", "/m-Q4_K_M.gguf": b"", "a//m-Q4_K_M.gguf": b""},
         "a/b:Q4_K_M", "contains no .gguf file"),
    ],
)  # fmt: skip
def test_a_repo_without_what_is_named_is_refused_before_its_weights_are_downloaded(
    files: dict[str, bytes], name: str, said: str, hub: HubServer, tmp_path: Path
) -> None:
    hub.add("a/b", files)
    with pytest.raises(InputError) as raised:
        find(name, tmp_path)
    assert said in raised.value.what and raised.value.remedy
    assert hub.asked("storage") == []


def test_one_file_of_weights_is_preferred_to_shards(hub: HubServer, tmp_path: Path) -> None:
    hub.add(CODER, WANTED | {"model.safetensors": b"all"})
    folder = find(CODER, tmp_path)
    assert not list(folder.glob("model-*")) and (folder / "model.safetensors").read_bytes() == b"all"


def test_a_name_stays_at_the_commit_that_it_was_downloaded_from(hub: HubServer, tmp_path: Path) -> None:
    old = hub.add(GGUF, {"m-Q4_K_M.gguf": b"old", "m-Q8_0.gguf": b"same"}, "v1")
    assert find(f"{GGUF}:Q4_K_M", tmp_path).read_bytes() == b"old"
    new = hub.add(GGUF, {"m-Q4_K_M.gguf": b"new", "m-Q8_0.gguf": b"same"})
    assert find(f"{GGUF}:Q4_K_M", tmp_path).read_bytes() == b"old"
    assert find(f"{GGUF}@main:Q4_K_M", tmp_path).read_bytes() == b"old"
    for revision, content in (("v1", b"old"), (old, b"old"), (new, b"new")):
        path = find(f"{GGUF}@{revision}:Q4_K_M", tmp_path)
        assert path.read_bytes() == content and path.parent.name == (new if content == b"new" else old)
    stored = len(hub.asked("storage"))
    assert find(f"{GGUF}@{new}:Q8_0", tmp_path).parent.name == new
    assert len(hub.asked("storage")) == stored + 1
    assert find(f"{GGUF}@v1:Q8_0", tmp_path).parent.name == old
    assert len(hub.asked("storage")) == stored + 1, "the same content is not downloaded again"


def test_what_was_downloaded_is_found_by_its_file_too(hub: HubServer, tmp_path: Path) -> None:
    hub.add(GGUF, {"m-Q4_K_M.gguf": b"four", "q8/m-Q8_0.gguf": b"eight"}, "v1")
    paths = [find(f"{GGUF}@v1:{tag}", tmp_path) for tag in ("Q4_K_M", "Q8_0")]
    assert find_base("m-Q4_K_M.gguf", tmp_path) == paths[0]
    assert find_base(f"{GGUF}@v1/q8/m-Q8_0.gguf", tmp_path) == paths[1]
    for name in (GGUF, f"{GGUF}@v1", f"{GGUF}:Q4_K_M", f"{GGUF}/q8/m-Q8_0.gguf"):
        with pytest.raises(NotDownloaded):  # it may be another commit by now, or mean other files
            find_base(name, tmp_path)


def test_files_and_caches_come_before_the_hub(hub: HubServer, tiny_gguf: Path, tmp_path: Path) -> None:
    hub.add(GGUF, {"m-Q4_K_M.gguf": b"hub"})
    cached = tmp_path / "home" / ".lmstudio/models" / GGUF / "m-Q4_K_M.gguf"
    cached.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, cached)
    assert find(f"{GGUF}:Q4_K_M", tmp_path) == cached
    local = tmp_path / GGUF / "any.gguf"
    local.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, local)
    assert find(GGUF, tmp_path) == local
    assert hub.seen == []


def test_the_token_goes_to_the_hub_alone(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("meta/gated", WANTED, gated=True)
    hub.tokens["hf_secret"] = {"meta/gated"}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert find("meta/gated", tmp_path).is_dir()
    assert all(one.headers["authorization"] == "Bearer hf_secret" for one in hub.seen if one.server == "hub")
    assert all("authorization" not in one.headers for one in hub.asked("storage")) and hub.asked("storage")


def test_a_missing_or_changed_file_is_downloaded_again(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add(CODER, WANTED)
    folder = find(CODER, tmp_path)
    hub.add(CODER, {**WANTED, "config.json": b"newer"})
    (folder / SHARDS[1]).unlink()
    with pytest.raises(NotDownloaded):
        find_base(CODER, tmp_path)
    find(CODER, tmp_path)
    (folder / SHARDS[0]).resolve().write_bytes(b"cut")
    with pytest.raises(NotDownloaded, match=r"its download to .* is unfinished"):
        find_base(CODER, tmp_path)
    stored = len(hub.asked("storage"))
    assert find(CODER, tmp_path) == folder and folder.name == commit
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == WANTED
    assert len(hub.asked("storage")) == stored + 1, "only what is not there"


def test_only_a_download_loads_the_hubs_library(tmp_path: Path, tiny_gguf: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from journeyman.models.opening import find_base; "
        f"find_base({str(tiny_gguf)!r}, Path()); "
        "print([name for name in ('huggingface_hub.hf_api', 'hf_xet') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys; sys.argv = ['journeyman', '--help']; from journeyman.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('huggingface_hub', 'torch', 'pydantic') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_a_name_without_a_repo_is_never_asked_for(hub: HubServer, tmp_path: Path) -> None:
    name = name_of("m.gguf")
    assert name is not None
    with pytest.raises(InputError, match="no file x, and no such model in"):
        find_model("m.gguf", name, "no file x", Recorder())
    assert hub.seen == []
