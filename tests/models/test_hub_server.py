"""The tests' own hub: huggingface_hub's functions download from it, and find its errors to be the hub's."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hub_server import HubServer

REPO = "someone/model"
FILES = {"config.json": b"{}", "a/b c.txt": b"text\n", "model.safetensors": bytes(range(256)) * 40} | {
    f"shard-{number}.safetensors": bytes([number]) * 1000 for number in range(8)
}


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def test_the_librarys_own_functions_download_from_it(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add(REPO, FILES, "v1")
    folder = Path(snapshot_download(REPO, revision="v1", endpoint=hub.endpoint, cache_dir=tmp_path / "cache"))
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == FILES and folder.name == commit
    assert all("authorization" not in one.headers for one in hub.asked("storage"))
    info = HfApi(endpoint=hub.endpoint).model_info(REPO, files_metadata=True)
    assert {one.rfilename: one.size for one in info.siblings or ()} == {name: len(data) for name, data in FILES.items()}


def test_its_errors_are_those_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    hub.add(REPO, FILES)
    hub.add("someone/gated", FILES, gated=True)
    hub.tokens |= {"hf_known": {"someone/gated"}, "hf_other": set()}
    api = HfApi(endpoint=hub.endpoint)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("someone/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    for token in (None, "hf_other"):
        with pytest.raises(GatedRepoError):
            hf_hub_download("someone/gated", "config.json", endpoint=hub.endpoint, cache_dir=tmp_path, token=token)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "none.json", endpoint=hub.endpoint, cache_dir=tmp_path)
    found = hf_hub_download("someone/gated", "config.json", endpoint=hub.endpoint, cache_dir=tmp_path, token="hf_known")
    assert Path(found).read_bytes() == b"{}"
