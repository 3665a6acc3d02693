"""Models in other programs' caches: found by the publisher's name, never downloaded, and never a wrong one.

test_hub.py downloads what no cache has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.artifacts import hash_of_file
from journeyman.errors import InputError
from journeyman.model_files import hash_of_model
from journeyman.models.names import ModelName, NotDownloaded, may_be, name_of
from journeyman.models.opening import base_at_hand, find_base, open_base
from split_model import write_split
from test_pipeline import call

REPO = "Qwen/Qwen2.5-Coder-7B-GGUF"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home folder, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _put(path: Path, content: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(content, path)
    return path


def _in_hub(hub: Path, file: str, content: Path, commit: str = "c1", repo: str = REPO) -> Path:
    """Adds a file to Hugging Face's cache, with a link to a blob; makes its commit the current one."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = _put(folder / "blobs" / hash_of_file(content), content)
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (REPO, ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "", "")),
        (f"{REPO}:Q4_K_M", ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "Q4_K_M", "")),
        (f"{REPO}/q4/m.gguf", ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "", "q4/m.gguf")),
        ("m.gguf", ModelName("", "", "", "m.gguf")),
        (f"{REPO}@v1.2", ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "", "", "v1.2")),
        (f"{REPO}@v1.2:Q4_K_M", ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "Q4_K_M", "", "v1.2")),
        (f"{REPO}@{'0a' * 20}/q4/m.gguf", ModelName("Qwen", "Qwen2.5-Coder-7B-GGUF", "", "q4/m.gguf", "0a" * 20)),
        (f"{REPO}:Q4_K_M@v1", None),
        (f"{REPO}@", None),
        (f"{REPO}@v1@v2", None),
        (f"{REPO}@../v1", None),
        (f"{REPO}@refs/pr/1", None),
        (f"{REPO}/m.gguf@v1", None),
        (f"{REPO}/m.gguf:Q4_K_M", None),
        (f"{REPO}:Q4_K_M:Q8_0", None),
        ("Qwen@v1/m", None),
        ("m.gguf@v1", None),
        ("models/m.gguf", None),
        ("/models/m.gguf", None),
        ("~/m.gguf", None),
        ("../m.gguf", None),
        ("a/../m.gguf", None),
        ("a/b/../m.gguf", None),
        ("m", None),
        ("", None),
        ("a/b\n", None),
    ],
)
def test_what_is_a_name(text: str, name: ModelName | None) -> None:
    assert name_of(text) == name


@pytest.mark.parametrize(
    ("tag", "file", "taken"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf", True),
        ("q4_k_m", "m.Q4_K_M.gguf", True),
        ("Q4_K_M", "m_q4_k_m.gguf", True),
        ("Q4_K_M", "Q4_K_M/m-00001-of-00002.gguf", True),
        ("Q4_K_M", "m-q4_k_m-00001-of-00002.gguf", True),
        ("Q4_K_XL", "m-UD-Q4_K_XL.gguf", True),
        ("Q4_K", "m-Q4_K_M.gguf", False),
        ("Q4_XS", "m-IQ4_XS.gguf", False),
        ("Q4_K_M", "m-Q4_K_S.gguf", False),
        ("7B", "m-27B-Q4_K_M.gguf", False),
    ],
)
def test_a_tag_is_a_whole_word_of_the_file_name(tag: str, file: str, taken: bool) -> None:
    assert ModelName("a", "b", tag, "").takes(file) == taken


@pytest.mark.parametrize("variable", ["", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE"])
def test_hugging_face(
    variable: str, home: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = {"": ".cache/huggingface/hub", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(variable, "")
    place = tmp_path / "elsewhere" if variable else home
    if variable:
        monkeypatch.setenv(variable, str(place))
    path = _in_hub(place / below, "m-Q4_K_M.gguf", tiny_gguf)
    _in_hub(place / below, "m-Q8_0.gguf", tiny_gguf)
    _in_hub(place / below, "mmproj-m-Q4_K_M.gguf", tiny_gguf)
    for name in (f"{REPO}:Q4_K_M", f"{REPO}/m-Q4_K_M.gguf", "m-Q4_K_M.gguf"):
        assert find_base(name, tmp_path) == path == base_at_hand(name, tmp_path)
    assert open_base(path).sha256 == hash_of_file(tiny_gguf) and path.name == "m-Q4_K_M.gguf"
    with pytest.raises(InputError, match=r"2 models in .*'s cache: .*m-Q4_K_M\.gguf \(.* GB\), .*m-Q8_0\.gguf"):
        find_base(REPO, tmp_path)
    with pytest.raises(NotDownloaded, match=r"only m-Q4_K_M\.gguf.*hf download Qwen.* --include '\*Q5_K_M\*\.gguf'"):
        find_base(f"{REPO}:Q5_K_M", tmp_path)


def test_the_current_snapshot_counts(home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    hub = home / ".cache/huggingface/hub"
    old = _in_hub(hub, "m-Q4_K_M.gguf", tiny_gguf, "c1")
    new = _in_hub(hub, "m-Q4_K_M.gguf", tiny_gguf, "c2")
    assert find_base(REPO, tmp_path) == new
    main = hub / f"models--{REPO.replace('/', '--')}" / "refs" / "main"
    main.write_text("c1\n")
    assert find_base(REPO, tmp_path) == old
    for text in ("c9", "..", "../../x"):
        main.write_text(text)
        with pytest.raises(InputError, match="2 models"):
            find_base(REPO, tmp_path)


def test_a_split_model_in_hugging_faces_cache_keeps_its_names(home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    parts = write_split(tiny_gguf, tmp_path / "made" / "m-Q4_K_M.gguf", 8)
    found = [_in_hub(home / ".cache/huggingface/hub", f"q4/{part.name}", part) for part in parts]
    base = open_base(find_base(f"{REPO}:q4_k_m", tmp_path))
    assert base.path == found[0] and base.sha256 == hash_of_model(parts[0])
    assert find_base(str(found[0]), tmp_path) == found[0] == find_base(str(found[0].parent), tmp_path)
    found[0].unlink()
    with pytest.raises(InputError, match=r"no file .*m-Q4_K_M-00001-of-00003\.gguf"):
        find_base(f"{REPO}:q4_k_m", tmp_path)


def _whole(snapshot: Path) -> Path:
    """The files of a Hugging Face model with two shards, empty but for the index."""
    snapshot.mkdir(parents=True)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in ("config.json", "tokenizer.json", *shards):
        (snapshot / name).touch()
    index = {"metadata": {}, "weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    return snapshot


def test_original_weights_are_found_if_they_are_complete(home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    hub = home / ".cache/huggingface/hub"
    folder = _whole(hub / "models--Qwen--Qwen2.5-0.5B/snapshots" / "c1")
    name = "Qwen/Qwen2.5-0.5B"
    assert find_base(name, tmp_path) == folder == base_at_hand(name, tmp_path)
    _in_hub(hub, "m-Q4_K_M.gguf", tiny_gguf, repo=name)
    assert find_base(name, tmp_path) == folder, "the weights, as on the hub, if no quantization is named"
    assert find_base(f"{name}:Q4_K_M", tmp_path) == folder / "m-Q4_K_M.gguf"
    with pytest.raises(NotDownloaded):
        find_base(f"{name}@c2", tmp_path)


@pytest.mark.parametrize(
    "missing", ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
)
def test_incomplete_original_weights_are_not_taken(missing: str, home: Path, tmp_path: Path) -> None:
    folder = _whole(home / ".cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/c1")
    (folder / missing).unlink()
    with pytest.raises(NotDownloaded, match=r"journeyman run downloads it; or run: hf download Qwen/Qwen2\.5-0\.5B"):
        find_base("Qwen/Qwen2.5-0.5B", tmp_path)


def test_several_commits_without_a_current_one_are_listed(home: Path, tmp_path: Path) -> None:
    repo = home / ".cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B"
    one, two = (_whole(repo / "snapshots" / (letter * 40)) for letter in "ab")
    with pytest.raises(InputError, match=f"2 commits in Hugging Face's cache: {one.name}, {two.name}") as raised:
        find_base("Qwen/Qwen2.5-0.5B", tmp_path)
    assert raised.value.remedy == f"Name one: Qwen/Qwen2.5-0.5B@{one.name}"
    assert find_base(f"Qwen/Qwen2.5-0.5B@{two.name}", tmp_path) == two
    (repo / "refs").mkdir()
    (repo / "refs" / "v1").write_text(one.name)
    assert find_base("Qwen/Qwen2.5-0.5B@v1", tmp_path) == one


@pytest.mark.parametrize("variable", ["", "LLAMA_CACHE", "XDG_CACHE_HOME"])
def test_llama_cpp(variable: str, home: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "elsewhere" if variable else home / ".cache" / "llama.cpp"
    if variable:
        monkeypatch.setenv(variable, str(place))
    place = place / "llama.cpp" if variable == "XDG_CACHE_HOME" else place
    flat = f"{REPO.replace('/', '_')}_m-Q4_K_M.gguf"
    path = _put(place / flat, tiny_gguf)
    _put(place / f"{REPO.replace('/', '_')}_2_m-Q4_K_M.gguf", tiny_gguf)
    (place / f"manifest={REPO.replace('/', '=')}_2=latest.json").touch()
    (place / f"manifest={REPO.replace('/', '=')}=latest.json").touch()
    for name in (REPO, f"{REPO}:Q4_K_M", f"{REPO}/m-Q4_K_M.gguf", flat):
        assert find_base(name, tmp_path) == path
    with pytest.raises(NotDownloaded):
        find_base(f"{REPO}@v1", tmp_path)
    with pytest.raises(InputError, match=r"no such model in .*llama\.cpp\)"):
        find_base("m-Q4_K_M.gguf", tmp_path)


@pytest.mark.parametrize("place", [".lmstudio/models", ".cache/lm-studio/models"])
def test_lm_studio(place: str, home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    path = _put(home / place / REPO / "m-Q4_K_M.gguf", tiny_gguf)
    for name in (REPO, f"{REPO}:Q4_K_M", f"{REPO}/m-Q4_K_M.gguf", "m-Q4_K_M.gguf"):
        assert find_base(name, tmp_path) == path
    _put(home / place / "other/repo" / "m-Q4_K_M.gguf", tiny_gguf)
    with pytest.raises(InputError, match=r"2 models in LM Studio's cache: Qwen/.*other/repo/m-Q4_K_M\.gguf"):
        find_base("m-Q4_K_M.gguf", tmp_path)


def test_a_file_in_the_run_folder_comes_first(home: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    _in_hub(home / ".cache/huggingface/hub", "m.gguf", tiny_gguf)
    for name, file in (("m.gguf", "m.gguf"), (REPO, f"{REPO}/n.gguf")):
        before = find_base(name, tmp_path)
        path = _put(tmp_path / file, tiny_gguf)
        assert find_base(name, tmp_path) == path != before


def test_what_is_nowhere_names_every_place_and_the_command(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        find_base(f"{REPO}:Q4_K_M", tmp_path)
    places = (".cache/journeyman/hub", ".cache/huggingface/hub", ".cache/llama.cpp")
    for place in (*places, ".lmstudio/models", ".cache/lm-studio/models"):
        assert str(home / place) in raised.value.what
    assert raised.value.remedy == f"journeyman run downloads it; or run: hf download {REPO} --include '*Q4_K_M*.gguf'"
    assert base_at_hand(f"{REPO}:Q4_K_M", tmp_path) is None
    with pytest.raises(NotDownloaded, match=r"hf download Qwen/Qwen3 --revision v1$"):
        find_base("Qwen/Qwen3@v1", tmp_path)
    with pytest.raises(NotDownloaded, match=f"hf download {REPO} m.gguf"):
        find_base(f"{REPO}/m.gguf", tmp_path)
    with pytest.raises(InputError, match=r"no file .*/n\.gguf, and no such model in .*'embedded'"):
        find_base("n.gguf", tmp_path)
    with pytest.raises(InputError, match=r"no file /nowhere/n\.gguf\. Set"):
        find_base("/nowhere/n.gguf", tmp_path)


_HUB = "/c/models--Qwen--Qwen2.5-Coder-7B-GGUF/snapshots/c1/q4/m-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        ("/old/m.gguf", "m.gguf", True),
        ("/old/m.gguf", "/new/m.gguf", True),
        ("/old/m.gguf", "n.gguf", False),
        ("/old/models/m.gguf", "../models", True),
        ("/old/models/m.gguf", "other", False),
        (_HUB, REPO, True),
        (_HUB, f"{REPO}:Q4_K_M", True),
        (_HUB, f"{REPO}/q4/m-Q4_K_M.gguf", True),
        (_HUB, "m-Q4_K_M.gguf", True),
        (_HUB, f"{REPO}:Q8_0", False),
        (_HUB, f"{REPO}/m-Q4_K_M.gguf", False),
        (_HUB, f"{REPO}-2:Q4_K_M", False),
        (_HUB, "Qwen/Qwen2.5-Coder-7B", False),
        (_HUB, f"{REPO}@{'a' * 40}:Q4_K_M", False),
        (_HUB.replace("c1", "a" * 40), f"{REPO}@{'a' * 40}:Q4_K_M", True),
        (f"/lm/{REPO}/m-Q4_K_M.gguf", f"{REPO}:Q4_K_M", True),
        (f"/lm/{REPO}/m-Q4_K_M.gguf", f"{REPO}@v1:Q4_K_M", False),
        (f"/ll/{REPO.replace('/', '_')}_q4_m-Q4_K_M.gguf", f"{REPO}/q4/m-Q4_K_M.gguf", True),
        (f"/ll/{REPO.replace('/', '_')}_m-Q4_K_M.gguf", f"{REPO}:Q4_K_M", True),
        ("/ollama/blobs/sha256-1", "ollama:qwen", False),
    ],
)
def test_which_names_a_recorded_file_may_have(path: str, model: str, expected: bool) -> None:
    assert may_be(Path(path), model) == expected


def test_a_missing_base_is_not_replaced_by_the_one_before(
    make_run: Callable[..., Path], home: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _in_hub(home / ".cache/huggingface/hub", "m-Q4_K_M.gguf", tiny_gguf)
    run = make_run()
    assert call("run", "--dir", run, "--set", f"base.model={REPO}:Q4_K_M", "--until", "plan") == 0
    for other in (f"{REPO}:Q8_0", "Qwen/Qwen2.5-Coder-7B-Instruct", "m.gguf", "../n.gguf", "ollama:qwen"):
        capsys.readouterr()
        assert call("plan", "--dir", run, "--set", f"base.model={other}") == 1, other
        assert "unchanged" not in capsys.readouterr().err


def test_a_run_outlives_the_cache(
    make_run: Callable[..., Path], home: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is found by its hash under the name of its file, in the run's folder."""
    _in_hub(home / ".cache/huggingface/hub", "m-Q4_K_M.gguf", tiny_gguf)
    run, base = make_run(), f"base.model={REPO}:Q4_K_M"
    assert call("run", "--dir", run, "--set", base, "--until", "plan") == 0
    shutil.rmtree(home / ".cache/huggingface")
    capsys.readouterr()
    assert call("plan", "--dir", run, "--set", base) == 1
    assert "HF_HUB_OFFLINE forbids downloading it" in (said := capsys.readouterr().err)
    assert "set base.model to its path" in said
    shutil.copy(tiny_gguf, run / "m-Q4_K_M.gguf")
    assert call("plan", "--dir", run, "--set", base) == 0
    assert "unchanged" in capsys.readouterr().err
