"""What arrives on a node is kept only if it is what was sent; what is there already is found."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest

pytest.importorskip("ray")

from journeyman.cluster.shipping import Shipment
from journeyman.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "journeyman" / "shipped"


def _split_model(folder: Path) -> Path:
    for number in (1, 2):
        (folder / f"m-0000{number}-of-00002.gguf").write_bytes(bytes([number]) * 1000)
    return folder / "m-00001-of-00002.gguf"


def _receive(shipment: Shipment, number: int, *chunks: bytes) -> None:
    receiving = shipment.receiver(number)
    for chunk in chunks:
        receiving.write(chunk)
    receiving.finish()


def test_a_split_model_arrives(tmp_path: Path, cache: Path) -> None:
    shipment: Shipment = pickle.loads(pickle.dumps(Shipment(_split_model(tmp_path), look=False)))
    assert shipment.missing() == [0, 1]
    _receive(shipment, 0, b"\1" * 400, b"\1" * 600)
    with pytest.raises(InputError, match="not sent to this node completely"):
        shipment.path()
    assert shipment.missing() == [1]
    _receive(shipment, 1, b"\2" * 1000)
    assert shipment.missing() == []
    folder = cache / shipment.sha256
    assert shipment.path() == folder / "m-00001-of-00002.gguf"
    assert sorted(one.name for one in folder.iterdir()) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_other_bytes_are_refused_and_removed(tmp_path: Path, cache: Path) -> None:
    shipment = Shipment(_split_model(tmp_path), look=False)
    with pytest.raises(InputError, match="damaged on the way"):
        _receive(shipment, 0, b"\1" * 999, b"\0")
    assert not list((cache / shipment.sha256).iterdir())
    assert shipment.missing() == [0, 1]


def test_what_was_damaged_there_is_missing(tmp_path: Path, cache: Path) -> None:
    shipment = Shipment(_split_model(tmp_path), look=False)
    _receive(shipment, 0, b"\1" * 1000)
    (cache / shipment.sha256 / "m-00001-of-00002.gguf").write_bytes(b"\3" * 1000)
    assert 0 in shipment.missing()


def test_two_may_write_the_same_file(tmp_path: Path, cache: Path) -> None:
    shipment = Shipment(_split_model(tmp_path), look=False)
    first, second = shipment.receiver(0), shipment.receiver(0)
    for one in (first, second):
        one.write(b"\1" * 1000)
    first.finish()
    second.finish()
    assert shipment.missing() == [1]


def test_the_same_files_under_the_same_path_are_taken(tmp_path: Path, cache: Path) -> None:
    source = _split_model(tmp_path)
    shipment = Shipment(source)
    assert shipment.missing() == []
    assert shipment.path() == source
    source.write_bytes(b"\7" * 1000)  # another machine, which has another model there
    assert shipment.missing() == [0, 1]
    with pytest.raises(InputError, match="not sent"):
        shipment.path()


def test_a_folder_arrives_as_a_folder(tmp_path: Path, cache: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (model / name).write_bytes(name.encode())
    shipment = Shipment(model, look=False)
    for number, name in enumerate(("config.json", "model.safetensors")):
        _receive(shipment, number, name.encode())
    assert shipment.path() == cache / shipment.sha256
    assert (shipment.path() / "config.json").read_bytes() == b"config.json"
