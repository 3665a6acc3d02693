"""A Hugging Face folder that a server serves with the adapter: from logs to a bundle that names the server."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_folder import chat_folder
from conftest import log_row, write_run
from fake_vllm import FakeVllm, fake_vllm
from journeyman.api.hosting import hosted
from journeyman.artifacts import read_json
from journeyman.config import load_config
from journeyman.errors import EngineError, StaleArtifact
from journeyman.inference.model_server import hash_of_peft
from journeyman.model_files import hash_of_model
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.runs import Run
from journeyman.stage_states import states_of
from journeyman.verifying import verify
from test_folder_base import _result
from test_pipeline import call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vllm() -> Iterator[FakeVllm]:
    with fake_vllm() as running:
        yield running


def started(vllm: FakeVllm, command: str) -> dict[str, str]:
    """Starts the server with a command line of vLLM; returns its adapters."""
    words = shlex.split(command)
    assert words[:2] == ["vllm", "serve"] and "--enable-lora" in words
    adapters = dict(one.split("=") for one in words[words.index("--lora-modules") + 1 : words.index("--host")])
    vllm.context = int(words[words.index("--max-model-len") + 1])
    vllm.load(Path(words[2]), words[2], {name: Path(path) for name, path in adapters.items()})
    return adapters


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, vllm: FakeVllm) -> Path:
    place = tmp_path_factory.mktemp("server-base")
    base = chat_folder(place / "Tiny-1M", "llama", dtype="bfloat16")
    toml = f'timed_rows = 2\nregression_suite = false\n[evaluate.server]\nurl = "{vllm.http.url}"\n'
    folder = write_run(place / "run", base, [log_row(i) for i in range(40)], toml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journeyman.models.converting.scripts_folder", lambda: pytest.fail("nothing is to be made"))
        assert call("train", "--dir", folder) == 0
        assert call("evaluate", "--dir", folder) == 1, "there is no server yet"
    return folder


@pytest.fixture(scope="module")
def evaluated(finished: Path, vllm: FakeVllm) -> Path:
    """The server was started as the error says."""
    run = Run(finished, load_config(finished / "journeyman.toml"))
    with pytest.raises(EngineError, match=r"evaluate\.server: http://.*") as raised:
        list(run_pipeline(run, "evaluate", SilentReporter()))
    started(vllm, raised.value.remedy.partition(": ")[2])
    assert call("run", "--dir", finished) in (0, 3)
    assert call("export", "--dir", finished, "--override", "a test") in (0, 3)
    return finished


def test_the_server_is_the_only_arm_that_may_ship(evaluated: Path, vllm: FakeVllm) -> None:
    plan, evaluation = _result(evaluated, "03-plan"), _result(evaluated, "05-evaluation")
    assert plan["rules"]["files"] == [f"server {vllm.http.url}"]
    assert plan["served"] == [] and plan["estimated_serve_memory_gb"] is None
    assert "estimated memory to serve: not known" in (evaluated / "03-plan" / "plan.md").read_text()
    assert list(evaluation["files"]) == ["tuned"]
    assert list(evaluation["roles"]["all"]["arms"]) == ["teacher", "base", "few-shot", "tuned"]
    found = evaluation["files"]["tuned"]
    base = evaluated.parent / "Tiny-1M"
    assert (found["path"], found["sha256"], found["identical_prompts"]) == (str(base), hash_of_model(base), 4)
    weights = found["server"]["weights"]
    assert weights["tokens"] > 50 and max(weights["base_nats"], weights["tuned_nats"]) < 0.01
    assert found["server"]["adapter_sha256"] == {"all": hash_of_peft(evaluated / "04-adapter")}
    assert evaluation["engine"]["name"] == f"server {vllm.http.url}"
    assert evaluation["roles"]["all"]["arms"]["tuned"]["success"]["passed"] == 4, "it learned to answer"
    assert evaluation["roles"]["all"]["arms"]["tuned"]["speed"]["n"] == 2


def test_a_servers_memory_is_not_a_rule(evaluated: Path, vllm: FakeVllm) -> None:
    decision = _result(evaluated, "06-decision")
    assert [one["rule"] for one in decision["roles"]["coder"]["reasons"]] == ["success", "latency"]
    text = (evaluated / "06-decision" / "decision.md").read_text().replace("\\", "").replace("&#58;", ":")
    assert f"over all roles, on Tiny-1M at {vllm.http.url}." in text
    page = (evaluated / "06-decision" / "report.html").read_text()
    assert f"Tiny-1M at {vllm.http.url}" in page and "nats on average with the base" in page


def test_the_bundle_names_the_server_and_has_the_adapter(
    evaluated: Path, vllm: FakeVllm, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, made = evaluated / "07-bundle", _result(evaluated, "07-bundle")
    assert made["base_file"] == "" and made["server"]["url"] == vllm.http.url
    assert made["base_sha256"] == hash_of_model(evaluated.parent / "Tiny-1M")
    assert hash_of_peft(bundle / "adapter") == made["adapter_sha256"]["all"] == hash_of_peft(evaluated / "04-adapter")
    names = {path.name for path in bundle.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "base.json", "bom.cdx.json", "manifest.json",
        "prompts.json", "vllm.sh",
    }  # fmt: skip
    line = (bundle / "vllm.sh").read_text().splitlines()[-1]
    assert '--override-generation-config \'{"temperature": 0.0, "max_new_tokens": ' in line
    before = dict(vllm.adapters)
    assert started(vllm, line.removeprefix("exec ").removesuffix(' "$@"')) == {
        made["server"]["tuned_models"]["all"]: "./adapter"
    }
    vllm.load(evaluated.parent / "Tiny-1M", str(evaluated.parent / "Tiny-1M"), before)
    card = (bundle / "README.md").read_text()
    assert "library_name: peft" in card and "sh vllm.sh" in card and "evaluated on the server" in card
    capsys.readouterr()
    assert call("serve", "--dir", evaluated, "--port", "0") == 2
    said = capsys.readouterr().err
    assert f"served by {vllm.http.url}" in said and f"serve --engine-url {vllm.http.url}" in said
    with hosted(evaluated, 0, engine_url=vllm.http.url) as host:  # it was evaluated: no other engine
        assert host.engine.selection("coder") == {"model": made["server"]["tuned_models"]["all"]}
    with hosted(evaluated, 0, engine_url=vllm.http.url.removesuffix("/v1")):
        pass  # the same server
    vllm.version = "0.1-fake"
    try:
        with (
            pytest.raises(StaleArtifact, match=r"0\.0-fake.*0\.1-fake"),
            hosted(evaluated, 0, engine_url=vllm.http.url),
        ):
            pass
    finally:
        vllm.version = "0.0-fake"
    assert verify(evaluated).findings == []


def test_targets_of_what_a_server_serves(evaluated: Path, vllm: FakeVllm, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no answer to compare with: the server is not asked again."""
    command = ["export", "--dir", evaluated, "--override", "a test"]
    assert call(*command, "--target", "gguf") == 1
    assert f"what ships is on {vllm.http.url}" in capsys.readouterr().err
    assert call(*command, "--target", "adapter", "--target", "vllm", "--target", "hf") == 3
    said = capsys.readouterr().out
    assert said.count(f"not tried here: what was evaluated is on the server {vllm.http.url}") == 3
    for name, was_evaluated in (("adapter", True), ("vllm", True), ("hf", False)):
        place = evaluated / "targets" / name
        made = read_json(place / "manifest.json")["result"]
        assert made["target"]["evaluated"] == was_evaluated and not (place / "golden.json").exists()
        if was_evaluated:
            (folder,) = made["adapter_files"].values()
            assert (
                made["adapter_sha256"]
                == {"all": hash_of_peft(place / folder)}
                == {"all": hash_of_peft(evaluated / "04-adapter")}
            )
    assert verify(evaluated).findings == []


def test_a_second_run_asks_nothing(evaluated: Path, vllm: FakeVllm) -> None:
    before = len(vllm.http.asked)
    assert call("decide", "--dir", evaluated) in (0, 3)
    states = states_of(Run(evaluated, load_config(evaluated / "journeyman.toml")))
    assert {one.state for one in states.values()} == {"fresh"}
    assert len(vllm.http.asked) == before


def test_files_and_a_server_are_compared(evaluated: Path, vllm: FakeVllm, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    both = ["--set", "evaluate.quantizations=['F16']"]
    adapter = (evaluated / "04-adapter" / "adapter.gguf").stat().st_mtime_ns
    assert call("decide", "--dir", evaluated, "--redo", *both) in (0, 3)
    evaluation = _result(evaluated, "05-evaluation")
    assert list(evaluation["files"]) == ["tuned", "tuned@server"]
    assert evaluation["files"]["tuned"]["server"] is None and evaluation["files"]["tuned"]["peak_memory_gb"] > 0
    assert evaluation["engine"]["name"].startswith("llama.cpp")
    arms = evaluation["roles"]["all"]["arms"]
    assert list(arms) == ["teacher", "base", "few-shot", "tuned", "tuned@server"]
    assert arms["tuned"]["success"] == arms["tuned@server"]["success"]
    assert _result(evaluated, "03-plan")["rules"]["role_confidence"] == pytest.approx(0.975)
    assert (evaluated / "04-adapter" / "adapter.gguf").stat().st_mtime_ns == adapter, "nothing is trained again"
    decision = _result(evaluated, "06-decision")
    assert decision["ships"] == "tuned" and list(decision["others"]) == ["tuned@server"]
    rules = {one["rule"] for one in decision["roles"]["coder"]["reasons"]}
    assert "memory" in rules


def test_a_server_needs_a_folder(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(toml='[evaluate.server]\nurl = "http://x/v1"\n')
    assert call("plan", "--dir", folder) == 2
    assert "evaluate.server serves a Hugging Face folder, and base.model is tiny.gguf" in capsys.readouterr().err
