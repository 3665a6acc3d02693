"""What a search recommends, as TOML and in a config file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from journeyman.config import TrainConfig, load_config
from journeyman.errors import UsageError
from journeyman.search.applying import apply, as_toml, settings_of
from journeyman.search.space import applied

DEFAULT = TrainConfig()
WANTED = settings_of(DEFAULT, applied(DEFAULT, {"learning_rate": 1e-3, "lora.rank": 32, "lora.targets": ["q_proj"]}))


def test_settings_are_what_differs_with_what_follows_from_it() -> None:
    assert WANTED == {
        "train.learning_rate": 1e-3, "train.lora.rank": 32, "train.lora.alpha": 64.0, "train.lora.targets": ["q_proj"]
    }  # fmt: skip
    assert settings_of(DEFAULT, DEFAULT) == {}


def test_the_snippet_is_toml_that_gives_these_settings() -> None:
    data = tomllib.loads(as_toml(WANTED))
    assert data["train"]["lora"] == {"rank": 32, "alpha": 64.0, "targets": ["q_proj"]}
    assert data["train"]["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    "text",
    [
        "# mine\n[train]\nepochs = 2   # enough\n\n[evaluate]\ncontext = 1024 # small\n",
        "[train]\nlora = { rank = 8, alpha = 16 }  # inline\n",
        "train.epochs = 2\ntrain.lora.rank = 4 # dotted\n",
        "[train.lora]\nrank = 4\n[evaluate]\ncontext = 1024\n",
        "[train]\nlora.rank = 8\nlora.targets = [\n  'q_proj',\n  'v_proj',\n] # two\n",
        "train = { epochs = 2, lora = { rank = 4 } }\n",
        "[evaluate]\ncontext = 1024 # small\r\n[train]\r\nepochs = 1\r\n",
        "",
    ],
)
def test_comments_and_other_keys_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journeyman.toml"
    path.write_text(text)
    before = load_config(path)
    changed = apply(path, WANTED)
    after = load_config(path)
    assert set(changed) == set(WANTED)
    assert (after.train.learning_rate, after.train.lora.rank, after.train.lora.alpha) == (1e-3, 32, 64)
    assert after.train.lora.targets == ["q_proj"]
    assert (after.train.epochs, after.evaluate) == (before.train.epochs, before.evaluate)
    for line in text.splitlines():
        if "#" in line:
            assert "#" + line.partition("#")[2] in path.read_text()


def test_old_values_are_returned(tmp_path: Path) -> None:
    path = tmp_path / "journeyman.toml"
    path.write_text("[train.lora]\nrank = 4\n")
    assert apply(path, {"train.lora.rank": 8, "train.epochs": 2}) == {
        "train.lora.rank": (4, 8), "train.epochs": (None, 2)
    }  # fmt: skip


def test_a_file_that_would_not_be_valid_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journeyman.toml"
    for text, wanted in (("[train]\n", {"train.lora.rank": 0}), ("train = 3\n", {"train.epochs": 2}), ("x = [", {})):
        path.write_text(text)
        with pytest.raises(UsageError):
            apply(path, wanted)
        assert path.read_text() == text
    with pytest.raises(UsageError, match="no such file"):
        apply(tmp_path / "none.toml", WANTED)
