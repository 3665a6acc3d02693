"""A merged file that evaluate.merged names is an arm of its own: it has its own verdict, and can be deployed by it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from chat_folder import chat_folder
from conftest import log_row, write_run
from journeyman.api.serving import Server
from journeyman.artifacts import hash_of_file, read_json
from journeyman.config import Config, MergedFormat, load_config, parse_config
from journeyman.errors import NotDeployable, UsageError
from journeyman.lineage import manifest_bytes, own_hash
from journeyman.manifests import BundleManifest, DecisionManifest, EvaluationManifest, PlanManifest
from journeyman.models.quantizing import QUANTIZED
from journeyman.promotion import promote
from journeyman.releases import record_of
from journeyman.runs import Run, typed_result
from journeyman.stage_settings import of_evaluate, of_plan
from journeyman.training.merge import WRITABLE
from journeyman.verifying import verify
from test_pipeline import call

TOML = (
    "merged = ['F16', 'Q4_0']\nregression_suite = false\nfew_shot = 0\nthreads = 1\nparallel = 1\n"
    "[decide]\nmin_success = 0.05\nmax_memory_gb = 64\nmax_mean_latency_s = 60\n"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Path]:
    """A run with two merged arms, and a verdict to deploy."""
    folder = write_run(tmp_path_factory.mktemp("merged") / "run", tiny_gguf, [log_row(i) for i in range(60)], TOML)
    targets = ["--target", "gguf", "--target", "lmstudio", "--quantization", "F16"]
    assert call("export", "--dir", folder, *targets) == 0
    yield folder


def test_each_merged_file_is_an_arm_that_the_plan_counts(finished: Path) -> None:
    plan, made = typed_result(finished, "plan", PlanManifest), typed_result(finished, "evaluate", EvaluationManifest)
    assert plan.rules.files == ["tiny.gguf", "merged-F16.gguf", "merged-Q4_0.gguf"]
    page = (finished / "03-plan" / "plan.md").read_text().replace("\\", "")
    assert "each with its own verdict: merged-F16.gguf" in page and "files that may ship" not in page
    assert plan.rules.role_confidence == pytest.approx(1 - 0.05 / 3)
    assert list(made.files) == ["tuned", "tuned@merged-F16", "tuned@merged-Q4_0"]
    assert [one.merged for one in made.files.values()] == [None, "F16", "Q4_0"]
    arms = made.roles["coder"].arms
    assert arms["tuned"].success and arms["tuned@merged-F16"].success, "both were asked and scored"
    assert arms["tuned"].success.passed == arms["tuned@merged-F16"].success.passed == made.rows
    for arm, one in made.files.items():
        assert one.merged is None or one.sha256 == hash_of_file(
            finished / "05-evaluation" / f"merged-{one.merged}.gguf"
        )
        assert made.roles["coder"].versus[arm]["base"].wins == made.rows, arm
    decision = typed_result(finished, "decide", DecisionManifest)
    assert decision.ships == "tuned" and decision.others["tuned@merged-F16"]["coder"] == "deploy"
    assert verify(finished).findings == [] == verify(finished).notes


def test_an_evaluated_merged_file_is_deployable_by_its_own_verdict(finished: Path, tmp_path: Path) -> None:
    for name in ("gguf", "lmstudio"):
        place = finished / "targets" / name
        bundle = BundleManifest.model_validate(read_json(place / "manifest.json")["result"])
        assert bundle.target is not None and bundle.target.evaluated and bundle.target.deployable
        assert bundle.verdicts == {"coder": "deploy"} and bundle.target.trials[0].outcome == "same"
        assert hash_of_file(place / "model.gguf") == hash_of_file(finished / "05-evaluation" / "merged-F16.gguf")
        card = (place / "README.md").read_text()
        assert "NOT EVALUATED" not in card and "these files were evaluated" in card
    with Server(finished / "targets" / "gguf", 0) as server:
        assert server.chat("coder", "Task: x").text.startswith("ok")
    assert promote(finished / "targets" / "gguf", tmp_path / "releases").number == 1
    assert record_of(tmp_path / "releases").events[0].override is None


def test_a_reason_for_what_may_be_deployed_is_said_to_be_useless(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--dir", finished, "--out", tmp_path, "--target", "gguf", "--quantization", "F16"]
    assert call(*command, "--allow-unevaluated", "a demo") == 0
    assert "--allow-unevaluated: not needed" in capsys.readouterr().out
    assert "a demo" not in (tmp_path / "gguf" / "README.md").read_text()


@pytest.mark.slow
def test_a_merged_file_names_the_file_with_whose_weights_it_was_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first one that may ship, also if another one ships."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = chat_folder(tmp_path / "Tiny-1M", "llama", dtype="bfloat16")
    toml = "quantizations = ['F16', 'Q8_0']\nmerged = ['F16']\nregression_suite = false\nfew_shot = 0\nthreads = 1\n"
    run = write_run(tmp_path / "run", base, [log_row(i) for i in range(40)], toml)
    assert call("decide", "--dir", run) in (0, 3)
    path = run / "06-decision" / "manifest.json"
    data, files = read_json(path), typed_result(run, "evaluate", EvaluationManifest).files
    first, second = (files[arm] for arm in list(files)[:2])
    others, ships = data["result"]["others"], data["result"]["ships"]
    if ships == "tuned":
        (other,) = (arm for arm in others if "merged" not in arm)
        others[ships], data["result"]["ships"] = others.pop(other), other
    data["stamp"]["sha256"] = own_hash(data)
    path.write_bytes(manifest_bytes(data))
    command = ["export", "--dir", run, "--override", "a test", "--target", "gguf", "--quantization"]
    for kind, of in (("F16", first), ("Q8_0", second)):
        assert call(*command, kind) == 3
        place = run / "targets" / "gguf"
        bundle = BundleManifest.model_validate(read_json(place / "manifest.json")["result"])
        assert bundle.target is not None and bundle.target.evaluated == (kind == "F16")
        assert (bundle.base_sha256, bundle.base_path) == (of.sha256, of.path), kind
        assert of.sha256 in (place / "README.md").read_text() and read_json(place / "base.json")["sha256"] == of.sha256
        assert of.sha256 in (place / "bom.cdx.json").read_text()
    assert typed_result(run, "export", BundleManifest).base_sha256 == second.sha256


def test_another_format_than_the_evaluated_ones_is_not_evaluated(finished: Path, tmp_path: Path) -> None:
    command = ["export", "--dir", finished, "--out", tmp_path, "--target", "gguf", "--quantization"]
    assert call(*command, "Q8_0") == 0
    with pytest.raises(NotDeployable, match="another file than the one that was"):
        Server(tmp_path / "gguf", 0)


def test_a_verdict_against_the_merged_file_keeps_it_from_being_served(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "06-decision" / "manifest.json"
    data = read_json(path)
    data["result"]["others"]["tuned@merged-F16"]["coder"] = "iterate"
    data["stamp"]["sha256"] = own_hash(data)
    path.write_bytes(manifest_bytes(data))
    command = ["export", "--dir", run, "--redo", "--target", "gguf", "--quantization", "F16"]
    assert call(*command) == 0
    with pytest.raises(NotDeployable, match=r"the verdict on these files is 'iterate' for coder"):
        Server(run / "targets" / "gguf", 0)
    with pytest.raises(NotDeployable, match="'iterate'"):
        promote(run / "targets" / "gguf", tmp_path / "releases")
    assert call(*command, "--allow-unevaluated", "a demo") == 0
    with Server(run / "targets" / "gguf", 0) as server:
        assert server.roles == ["coder"]


QUANTIZE = """#!/bin/sh
test "$1" = --allow-requantize && test "$4" = Q4_K_M && cp "$2" "$3"
"""


def test_other_formats_are_made_by_llama_quantize_or_refused_at_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--dir", finished, "--out", tmp_path / "out", "--target", "gguf", "--quantization"]
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert call(*command, "Q4_K_M") == 1 and "Q4_K_M: needs llama.cpp's llama-quantize" in capsys.readouterr().err
    program = tmp_path / "llama-quantize"
    program.write_text(QUANTIZE)
    program.chmod(0o755)
    assert call(*command, "Q6_K") == 1 and "llama-quantize failed" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert call(*command, "Q4_K_M") == 0
    assert "NOT DEPLOYABLE: not evaluated: base and adapter were merged to Q4_K_M" in capsys.readouterr().out
    sizes = {path.stat().st_size for path in (tmp_path / "out" / "gguf").glob("*.gguf")}
    assert sizes == {(finished / "05-evaluation" / "merged-F16.gguf").stat().st_size}
    assert list((tmp_path / "out" / "gguf").glob(".*")) == []


def test_the_key_is_checked_and_older_runs_stay_fresh(finished: Path) -> None:
    assert set(get_args(MergedFormat)) == {*WRITABLE, *QUANTIZED}
    for toml, said in (
        ({"evaluate": {"merged": ["F16"]}, "train": {"adapters": "per-role"}}, "one adapter for all roles"),
        ({"evaluate": {"merged": ["F16", "F16"]}}, "names a format twice"),
        ({"evaluate": {"merged": ["Q1_K"]}}, "merged"),
        ({"evaluate": {"merged": ["F16"], "server": {"url": "http://127.0.0.1:1/v1"}}}, "a GGUF file to merge into"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_config(toml, "journeyman.toml")
    run = Run(finished, load_config(finished / "journeyman.toml", ["evaluate.merged=[]"]))
    assert not [key for settings in (of_plan(run), of_evaluate(run)) for key in settings if "merged" in key]
    assert Config().evaluate.merged == []
