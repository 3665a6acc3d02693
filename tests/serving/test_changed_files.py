"""An engine is not started again with other files than those that were evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from conftest import write_tiny_gguf
from faults import wait_until
from journeyman.api.serving import Server
from journeyman.errors import ChangedArtifact, EngineError
from journeyman.inference.engines import start_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.promotion import promote
from journeyman.protocols import EngineSettings
from journeyman.serving import engine as kept_module
from test_switching import ASKED, _ask, _bundle, _engines


@pytest.mark.parametrize("of_release", [False, True])
def test_a_base_that_was_replaced_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_release: bool
) -> None:
    monkeypatch.setattr(kept_module, "_WAITS_S", (0.0, *[0.2] * 200))
    bundle = folder = _bundle(tmp_path / "one", 1)
    releases = None
    if of_release:
        folder, releases = tmp_path, tmp_path / "releases"
        promote(bundle, releases)
        (bundle,) = releases.glob("0*")
    (folder / "journeyman.toml").write_text("[serve]\nrestart_s = 0.5\n")
    base, right = bundle / "base.gguf", tmp_path / "right.gguf"
    shutil.copy(base, right)
    with Server(folder, 0, releases=releases) as server:
        first = _ask(server)
        write_tiny_gguf(tmp_path / "other.gguf", seed=2).replace(base)
        _engines()[0].kill()
        wait_until(lambda: any(f"{base}: changed" in line for line in server.warnings))
        refused = httpx.post(f"{server.url}/chat/completions", json=ASKED, timeout=60)
        assert (
            refused.status_code == 503 and "files that have changed" in refused.text and str(base) not in refused.text
        )
        assert httpx.get(f"{server.url.removesuffix('/v1')}/ready").status_code == 503
        base.unlink()
        wait_until(lambda: any(f"{base}: missing" in line for line in server.warnings))
        right.replace(base)
        wait_until(lambda: any("is running again" in line for line in server.warnings))
        assert _ask(server) == first


def test_a_copy_of_a_bundle_is_not_told_to_run_again(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "one", 1)
    write_tiny_gguf(bundle / "base.gguf", seed=2)
    with pytest.raises(ChangedArtifact, match="Restore it") as refused:
        Server(bundle, 0)
    assert "--redo" not in str(refused.value)


def test_a_base_that_changes_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf")
    wait = LlamaEngine._wait_until_loaded

    def slow(self: LlamaEngine) -> None:
        wait(self)
        write_tiny_gguf(tmp_path / "other.gguf", seed=2).replace(base)

    monkeypatch.setattr(LlamaEngine, "_wait_until_loaded", slow)
    with pytest.raises(EngineError, match="changed while"):
        start_engine(EngineSettings(base, {}, 512, 1, 0.0))
