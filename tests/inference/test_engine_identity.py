"""The engine's identity: in the fingerprint, in the evaluation, in the bundle, and compared with the serving engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_engine import ENGINE, FakeEngine
from journeyman.artifacts import read_json
from journeyman.cli.serve import serve_bundle
from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, StaleArtifact
from journeyman.inference import engines
from journeyman.inference import llama_facts as facts_module
from journeyman.inference.arm_runner import Gathered
from journeyman.inference.engines import engine_identity, engine_inputs
from journeyman.inference.llama_facts import llama_identity
from journeyman.lineage import own_hash
from journeyman.manifests import BundleManifest, EvaluationManifest
from journeyman.pipeline import typed_result
from journeyman.serving import engine as kept_module
from journeyman.serving.engine import kept_engine
from journeyman.serving.evaluated import check_engine
from test_pipeline import call

MakeRun = Callable[..., Path]
NEWER = ENGINE.model_copy(update={"version": "2"})


def test_the_engine_reports_its_identity() -> None:
    here = llama_identity(512, 2, None)
    assert here.known and here.name == "llama.cpp (xllamacpp)" and len(here.build["library"]) == 64
    assert here.settings["context"] == 512 and here.settings["parallel"] == 2 and here.settings["threads"] is None
    assert {"flash_attn_type", "cache_type_k", "cache_type_v", "n_batch", "n_ubatch"} <= here.settings.keys()
    assert here.processor and here.cpu_features and not any("=" in one for one in here.cpu_features)
    assert EngineIdentity.model_validate_json(here.model_dump_json()) == here
    assert here.differences(llama_identity(1024, 2, 1)) == [
        "engine.context: 512, not 1024",
        "engine.threads: None, not 1",
    ]


def test_an_engine_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "MODULE", "journeyman.no_such_module")
    with pytest.raises(EngineError, match=r"does not report its identity: .*no_such_module.*doctor"):
        llama_identity(512, 1, None)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"version": "2"}, ["engine.version: 1, not 2"]),
        ({"build": {"commit": "def"}}, ["engine.build.commit: abc, not def"]),
        ({"build": {}}, ["engine.build.commit: abc, not not known"]),
        ({"settings": {"n_batch": 9}}, ["engine.n_batch: 8, not 9"]),
        ({"settings": {"n_batch": 8, "swa": True}}, ["engine.swa: not known, not True"]),
        ({"processor": "two"}, []),
        ({"cpu_features": ["AVX2", "AVX512"]}, []),
    ],
)
def test_version_build_and_settings_make_another_engine_and_the_processor_does_not(
    change: dict[str, Any], names: list[str]
) -> None:
    other = ENGINE.model_copy(update=change)
    assert ENGINE.differences(other) == names
    assert bool(ENGINE.machine_differences(other)) == (not names)


def test_old_manifests_contain_only_a_name() -> None:
    old = EngineIdentity.model_validate("llama.cpp (xllamacpp)")
    assert not old.known and old.line() == "llama.cpp (xllamacpp)"
    bundle = BundleManifest.model_construct()
    assert bundle.engine is None
    with pytest.raises(ValueError, match="nonsense"):
        EngineIdentity.model_validate({"name": "x", "nonsense": 1})


def test_the_serving_engine_is_compared_with_the_evaluated_one(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    (run / "journeyman.toml").touch()
    assert check_engine(ENGINE, ENGINE, run, allow_other=False) == []
    moved = ENGINE.model_copy(update={"processor": "two", "cpu_features": ["NEON"]})
    first, second = check_engine(ENGINE, moved, run, allow_other=False)
    assert "processor: one, not two" in first and "CPU features: AVX2, not NEON" in second
    with pytest.raises(StaleArtifact) as refused:
        check_engine(ENGINE, NEWER, run, allow_other=False)
    for part in ("fake 1", "fake 2", "engine.version: 1, not 2", f"run --redo --dir '{run}'", "--allow-other-engine"):
        assert part in str(refused.value)
    (loud,) = check_engine(ENGINE, NEWER, run, allow_other=True)
    assert loud.startswith("WARNING") and "fake 1" in loud and "fake 2" in loud
    for unknown in (None, EngineIdentity(name="llama.cpp")):
        (told,) = check_engine(unknown, ENGINE, run, allow_other=False)
        assert "does not record" in told and "run --redo" in told
    with pytest.raises(StaleArtifact, match="--dir RUN") as refused:  # a release or a copy of a bundle is no run
        check_engine(ENGINE, NEWER, tmp_path, allow_other=False)
    assert str(tmp_path) not in str(refused.value)


def test_an_engine_that_was_replaced_during_an_evaluation_is_refused() -> None:
    gathered = Gathered()
    gathered.note_engine(ENGINE)
    gathered.note_engine(ENGINE.model_copy(update={"processor": "two"}))
    with pytest.raises(EngineError, match=r"replaced during the evaluation: engine\.version: 1, not 2"):
        gathered.note_engine(NEWER)


def test_a_server_does_not_restart_with_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    class Dead(FakeEngine):
        def how_it_ended(self) -> str:
            return "ended"

    def start(settings: object) -> FakeEngine:
        newer = FakeEngine(tmp_path, "")
        newer.engine_identity = NEWER
        monkeypatch.setattr(newer, "stop", lambda: stopped.append("newer"))
        return newer

    async def serve() -> None:
        done = asyncio.Event()
        first = Dead(tmp_path, "")
        first.alive = False
        async with kept_engine(first, said.append, done.set):
            await asyncio.wait_for(done.wait(), 10)

    said: list[str] = []
    monkeypatch.setattr(kept_module, "_WAITS_S", (0.0,))
    monkeypatch.setattr(kept_module, "start_engine", start)
    asyncio.run(serve())
    assert stopped == ["newer"] and any(
        "replaced while the server was running: engine.version: 1, not 2" in one for one in said
    )


# --- through the whole pipeline -------------------------------------------------------------------


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[], EngineIdentity]:
    """Makes this machine's engine look like another release."""

    def do() -> EngineIdentity:
        newer = engine_identity(512, 4, 2).model_copy(update={"version": "2099.1"})
        monkeypatch.setattr(engines, "engine_identity", lambda *settings: newer)
        monkeypatch.setattr("journeyman.api.prepared.identity_now", lambda *settings: newer)
        return newer

    return do


def test_the_fingerprint_has_every_decisive_value_once() -> None:
    inputs = engine_inputs(EvaluateConfig(context=256), Path())
    assert {"engine.version", "engine.build.library", "engine.flash_attn_type"} <= inputs.keys()
    assert not {"engine.context", "engine.parallel", "engine.threads"} & inputs.keys(), "they are evaluate.*'s"
    assert not any("processor" in key or "features" in key for key in inputs)


def test_an_upgraded_engine_makes_the_evaluation_stale_and_serving_refuses(
    make_run: MakeRun, upgrade: Callable[[], EngineIdentity], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = make_run()
    assert call("run", "--override", "a test", "--dir", folder) == 3
    evaluated = typed_result(folder, "evaluate", EvaluationManifest).engine
    assert evaluated.known and evaluated.settings["context"] == 512
    bundle = typed_result(folder, "export", BundleManifest)
    assert bundle.engine == evaluated
    assert evaluated.line() in (folder / "07-bundle" / "README.md").read_text()
    assert evaluated.line() in (folder / "06-decision" / "report.html").read_text()

    upgrade()
    capsys.readouterr()
    assert call("train", "--dir", folder) == 0, "what asks no engine is as fresh as before"
    assert call("evaluate", "--dir", folder) == 1
    said = capsys.readouterr().err
    assert f"engine.version: {evaluated.version}, now 2099.1" in said and "run --redo" in said
    with pytest.raises(StaleArtifact, match=rf"{evaluated.version}.*2099\.1"):
        serve_bundle(folder, 0)

    assert call("export", "--override", "a test", "--dir", folder) == 1
    (folder / "07-bundle" / "manifest.json").unlink()
    assert call("export", "--override", "a test", "--allow-other-engine", "--dir", folder) == 3
    said = capsys.readouterr().err
    assert "WARNING" in said and "2099.1" in said and evaluated.version in said
    assert typed_result(folder, "export", BundleManifest).engine == evaluated, "not the one that is installed"

    monkeypatch.setattr("journeyman.api.engine_choice.running_engine", _no_engine)
    with pytest.raises(EngineError, match="far enough"):
        serve_bundle(folder, 0, allow_other_engine=True)
    assert "WARNING" in capsys.readouterr().err


def _no_engine(settings: object) -> Any:
    raise EngineError("far enough", "")


def test_a_run_of_an_older_version_opens_and_says_that_its_engine_is_not_known(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    assert call("run", "--override", "a test", "--dir", folder) == 3
    for stage in ("05-evaluation", "07-bundle"):
        path = folder / stage / "manifest.json"
        data = read_json(path)
        if stage == "05-evaluation":
            data["result"]["engine"] = "llama.cpp (xllamacpp)"
        else:
            del data["result"]["engine"]
        data["stamp"]["sha256"] = own_hash(data)
        path.write_text(json.dumps(data))
    assert call("show", "evaluate", "--dir", folder) == 0
    assert typed_result(folder, "evaluate", EvaluationManifest).engine.line() == "llama.cpp (xllamacpp)"
    monkeypatch.setattr("journeyman.api.engine_choice.running_engine", _no_engine)
    capsys.readouterr()
    with pytest.raises(EngineError, match="far enough"):
        serve_bundle(folder, 0)
    assert "does not record which engine" in capsys.readouterr().err
