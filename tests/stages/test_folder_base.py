"""A Hugging Face folder as the base, from logs to a served bundle: what was trained on it runs as GGUF files of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chat_folder import chat_folder
from conftest import log_row, write_run
from journeyman.api.serving import Server
from journeyman.artifacts import read_json
from journeyman.config import load_config
from journeyman.model_files import hash_of_model
from journeyman.models import converting
from journeyman.models.llama_converter import converter_version
from journeyman.runs import Run
from journeyman.stage_states import states_of
from journeyman.verifying import verify
from test_pipeline import call

F16, Q8_0 = "Tiny-1M-F16.gguf", "Tiny-1M-Q8_0.gguf"


def _result(run: Path, stage: str) -> dict[str, Any]:
    return dict(read_json(run / stage / "manifest.json")["result"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on a Llama, whose q and k lie differently in folder and file; exported despite the verdict."""
    place = tmp_path_factory.mktemp("folder-base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        base = chat_folder(place / "Tiny-1M", "llama", dtype="bfloat16")
        toml = 'quantizations = ["F16", "Q8_0"]\nregression_suite = false\n'
        folder = write_run(place / "run", base, [log_row(i) for i in range(40)], toml)
        assert call("run", "--dir", folder) in (0, 3)
        assert call("export", "--dir", folder, "--override", "a test") in (0, 3)
        yield folder


def test_the_plan_names_what_will_ship_and_how_it_was_made(finished: Path) -> None:
    plan, base = _result(finished, "03-plan"), finished.parent / "Tiny-1M"
    assert (plan["base_path"], plan["base_sha256"]) == (str(base), hash_of_model(base))
    assert [Path(one["path"]).name for one in plan["served"]] == plan["rules"]["files"] == [F16, Q8_0]
    assert {one["made_by"] for one in plan["served"]} == {converter_version()}
    page = (finished / "03-plan" / "plan.md").read_text()
    assert f"made of the base by {converter_version()}" in page.replace("\\", "")


def test_what_was_made_is_what_was_evaluated(finished: Path) -> None:
    plan, evaluation = _result(finished, "03-plan"), _result(finished, "05-evaluation")
    assert list(evaluation["files"]) == ["tuned", "tuned@Tiny-1M-Q8_0"]
    assert list(evaluation["roles"]["all"]["arms"]) == ["teacher", "base", "few-shot", "tuned", "tuned@Tiny-1M-Q8_0"]
    for planned, arm in zip(plan["served"], evaluation["files"].values(), strict=True):
        assert planned["sha256"] == arm["sha256"] == hash_of_model(Path(planned["path"]))
        assert arm["identical_prompts"] == evaluation["rows"] == 4
    assert evaluation["roles"]["all"]["arms"]["tuned"]["success"]["passed"] == 4, "it learned to answer"
    assert read_json(finished / "04-adapter" / "adapter_config.json")["base_model_name_or_path"] == plan["base_path"]


def test_every_link_from_the_folder_to_a_merged_file_agrees(finished: Path) -> None:
    assert call("evaluate", "--bisect", "--dir", finished) == 0
    found = read_json(finished / "bisect.json")
    assert found["parts_at"] is None and all(link["agreement"] == 1 for link in found["links"])
    assert [link["name"] for link in found["links"]][-1] == "llama.cpp, merged and quantized (F16)"
    assert all(link["most_nats"] < 0.01 for link in found["links"])


def test_the_bundle_serves_the_file_that_was_evaluated(finished: Path) -> None:
    bundle, made = finished / "07-bundle", _result(finished, "07-bundle")
    ships = _result(finished, "05-evaluation")["files"][_result(finished, "06-decision")["ships"]]
    assert hash_of_model(bundle / "base.gguf") == made["base_sha256"] == ships["sha256"]
    card = (bundle / "README.md").read_text()
    assert f"the adapter was trained on Tiny-1M, SHA-256 `{_result(finished, '03-plan')['base_sha256']}`" in card
    assert "FROM ./base.gguf\nADAPTER ./adapter.gguf" in (bundle / "Modelfile.coder").read_text()
    with Server(finished, 0) as server:
        assert server.roles == ["coder"] and server.chat("coder", "Task: x").text


def test_a_second_run_makes_nothing_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "scripts_folder", lambda: pytest.fail("converted again"))
    assert call("decide", "--dir", finished) in (0, 3)
    run = Run(finished, load_config(finished / "journeyman.toml"))
    assert {one.state for one in states_of(run).values()} == {"fresh"}
    assert verify(finished).findings == []


def test_a_changed_folder_makes_everything_after_the_logs_stale(finished: Path, tmp_path: Path) -> None:
    base = finished.parent / "Tiny-1M"
    shutil.copytree(base, tmp_path / "Tiny-1M")
    settings = [f"base.model={tmp_path / 'Tiny-1M'}"]
    assert states_of(Run(finished, load_config(finished / "journeyman.toml", settings)))["curate"].state == "fresh"
    for name in ("model.safetensors", "tokenizer_config.json"):
        path = tmp_path / "Tiny-1M" / name
        before = path.read_bytes()
        path.write_bytes(before[:-2] + b"\x01\x3c" if name == "model.safetensors" else before + b"\n")
        states = states_of(Run(finished, load_config(finished / "journeyman.toml", settings)))
        assert (states["ingest"].state, states["curate"].state) == ("fresh", "stale")
        assert states["curate"].changed == ("base",)
        path.write_bytes(before)
    weights = base / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-2] + b"\x01\x3c")
    assert any("Tiny-1M: changed after plan read it" in one for one in verify(finished).findings)
    weights.write_bytes(before)


def test_a_run_without_its_files_says_how_to_get_them(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    states = states_of(Run(finished, load_config(finished / "journeyman.toml")))
    assert states["curate"].state == "fresh" and "F16 of" in states["plan"].changed[0]


def test_the_engine_is_tried_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of another base, and one with another template: both are found by the plan."""
    base = chat_folder(tmp_path / "Tiny-1M")
    folder = write_run(tmp_path / "run", base, [log_row(i) for i in range(40)], 'quantizations = ["F16"]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert call("plan", "--dir", folder) == 0
        made = next((tmp_path / "cache").rglob("*.gguf"))
        made.rename(folder / "given.gguf")
        other = chat_folder(tmp_path / "other" / "Tiny-1M", seed=1)
        command = ["train", "--dir", folder, "--redo", "--set", "evaluate.quantizations=['given.gguf']"]
        assert call(*command, "--set", f"base.model={other}") == 1
        assert "given.gguf: not a file of the base Tiny-1M: " in capsys.readouterr().err
        settings = json.loads((base / "tokenizer_config.json").read_text())
        settings["chat_template"] = settings["chat_template"].replace("assistant", "model")
        (base / "tokenizer_config.json").write_text(json.dumps(settings))
        capsys.readouterr()
        assert call(*command) == 1
    said = capsys.readouterr().err
    assert "training and given.gguf make different prompts" in said and not (folder / "04-adapter").exists()
