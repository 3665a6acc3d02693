"""Models in Ollama's store: found by the name that Ollama shows, or one sentence that says what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from journeyman.artifacts import sha256_of
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models import ollama
from journeyman.models.opening import base_at_hand, find_base, open_base
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where Ollama would keep its models, with nothing in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr(ollama, "SERVICE", tmp_path / "service")
    return tmp_path / "home" / ".ollama" / "models"


def _pull(store: Path, name: str, file: Path, *others: dict[str, Any], **changes: Any) -> Path:
    """Adds a model to the store as Ollama does; returns its blob."""
    digest = sha256_of(file)
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, blob)
    layer = {"mediaType": ollama._MODEL, "digest": f"sha256:{digest}", "size": file.stat().st_size, **changes}
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64, "size": 3}
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [template, layer, *others]}))
    return blob


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (f"{LIBRARY}/qwen2.5-coder/7b", "ollama:qwen2.5-coder:7b"),
        (f"{LIBRARY}/smollm2/latest", "ollama:smollm2"),
        ("registry.ollama.ai/someone/mine/v1", "ollama:someone/mine:v1"),
        ("hf.co/org/repo-GGUF/Q4_K_M", "ollama:hf.co/org/repo-GGUF:Q4_K_M"),
    ],
)
def test_a_pulled_model_is_found(place: str, name: str, store: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    blob = _pull(store, place, tiny_gguf)
    found = find_base(name, tmp_path)
    assert found == blob == base_at_hand(name, tmp_path)
    assert open_base(found).geometry == open_base(tiny_gguf).geometry
    shown = name.removeprefix("ollama:")
    assert ollama.models_of(store) == [shown if ":" in shown else f"{shown}:latest"]


def test_the_variable_names_the_store(
    store: Path, monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path, tmp_path: Path
) -> None:
    blob = _pull(tmp_path / "elsewhere", f"{LIBRARY}/a/1b", tiny_gguf)
    with pytest.raises(InputError, match=r"there are no Ollama models in .*home.*service.*ollama pull a:1b"):
        find_base("ollama:a:1b", tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "elsewhere"))
    assert find_base("ollama:a:1b", tmp_path) == blob


def test_the_store_of_the_service_is_searched(store: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    blob = _pull(ollama.SERVICE, f"{LIBRARY}/a/latest", tiny_gguf)
    assert find_base("ollama:a", tmp_path) == blob


def test_a_model_that_is_not_there_lists_those_that_are(store: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    _pull(store, f"{LIBRARY}/qwen3/4b", tiny_gguf)
    _pull(store, "registry.ollama.ai/me/tuned/latest", tiny_gguf)
    with pytest.raises(InputError, match=r"it has me/tuned:latest, qwen3:4b") as raised:
        find_base("ollama:qwen3:8b", tmp_path)
    assert raised.value.remedy == "Get it: ollama pull qwen3:8b"
    assert base_at_hand("ollama:qwen3:8b", tmp_path) is None
    with pytest.raises(InputError, match="it is empty"):
        shutil.rmtree(store / "manifests")
        (store / "manifests").mkdir()
        find_base("ollama:qwen3:8b", tmp_path)


@pytest.mark.parametrize("name", ["ollama:", "ollama:../../etc/passwd", "ollama:a/../b", "ollama:a:b:c", "ollama:a b"])
def test_a_name_stays_in_the_store(name: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model's name"):
        find_base(name, tmp_path)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is damaged"),
    "not JSON": (b"\xff\xfe{", "is damaged"),
    "deep": (b"[" * 200_000, "is damaged"),
    "a list": (b"[]", "is damaged"),
    "without layers": (b"{}", "is damaged"),
    "layers that are no list": (b'{"layers": 7}', "is damaged"),
    "layers that are no objects": (b'{"layers": [7]}', "is damaged"),
    "no model": (b'{"layers": []}', "lists 0 GGUF files"),
    "a digest that is a path": (
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]}',
        "is damaged",
    ),
    "a missing blob": (
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:' + b"a" * 64 + b'"}]}',
        "is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_manifest_is_one_sentence(name: str, store: Path, tmp_path: Path) -> None:
    content, why = DAMAGED[name]
    path = store / "manifests" / LIBRARY / "a" / "1b"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=why) as raised:
        find_base("ollama:a:1b", tmp_path)
    assert "ollama:a:1b" in raised.value.what and "\n" not in raised.value.what and raised.value.remedy


def test_another_size_an_adapter_or_two_models_are_refused(store: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    _pull(store, f"{LIBRARY}/a/1b", tiny_gguf, size=5)
    with pytest.raises(InputError, match=r"bytes, not 5.*ollama pull a:1b"):
        find_base("ollama:a:1b", tmp_path)
    _pull(store, f"{LIBRARY}/b/1b", tiny_gguf, {"mediaType": ollama._ADAPTER, "digest": "sha256:" + "b" * 64})
    with pytest.raises(InputError, match="a base with an adapter"):
        find_base("ollama:b:1b", tmp_path)
    _pull(store, f"{LIBRARY}/c/1b", tiny_gguf, {"mediaType": ollama._MODEL, "digest": "sha256:" + "b" * 64})
    with pytest.raises(InputError, match="lists 2 GGUF files"):
        find_base("ollama:c:1b", tmp_path)


def test_a_store_that_cannot_be_read_names_the_group(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if ollama.SERVICE in path.parents:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match=r"cannot be read by this user.*usermod"):
        find_base("ollama:a", tmp_path)


def test_the_engine_serves_the_blob(store: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """Its name does not end in .gguf."""
    _pull(store, f"{LIBRARY}/a/latest", tiny_gguf)
    path = find_base("ollama:a", tmp_path)
    messages = [Message(role="user", content="Task: x")]
    with running_engine(EngineSettings(path, {}, 256, 1, 0.0)) as engine:
        assert engine.prompt_ids(messages) == Renderer(open_base(path)).prompt_ids(messages)
