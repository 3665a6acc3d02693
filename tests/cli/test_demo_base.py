"""`journeyman demo --base`: the shipped data on another base."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.cli.demo import run_demo
from journeyman.config import load_config
from journeyman.errors import InputError, UsageError


def test_the_config_file_names_the_base_and_its_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "journeyman.cli.demo.run_stages", lambda *_, **__: (_ for _ in ()).throw(InputError("stop", ""))
    )
    (tmp_path / "a.gguf").touch()
    with pytest.raises(InputError):
        run_demo(Path("one"), "a.gguf", "gemma")
    config = load_config(tmp_path / "one/journeyman.toml").base
    assert (config.model, config.chat_template) == (str(tmp_path / "a.gguf"), "gemma")
    with pytest.raises(InputError):
        run_demo(Path("two"), "Qwen/Qwen2.5-Coder-7B-Instruct")
    assert load_config(tmp_path / "two/journeyman.toml").base.model == "Qwen/Qwen2.5-Coder-7B-Instruct"
    with pytest.raises(InputError):
        run_demo(Path("three"), None, "chatml")
    assert load_config(tmp_path / "three/journeyman.toml").base.model == "embedded"


def test_an_existing_config_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("")
    with pytest.raises(UsageError, match=r"exists, so its .base. is used"):
        run_demo(tmp_path, "a.gguf")
