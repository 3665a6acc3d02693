"""Every target of `export`: loaded again, it answers the golden prompt as the evaluated files do, or says why not."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from chat_folder import chat_folder
from conftest import log_row, write_run
from faults import fill, small_disk
from journeyman.api.serving import Server
from journeyman.artifacts import hash_of_file, read_json
from journeyman.errors import InputError, NotDeployable
from journeyman.locking import locked
from journeyman.manifests import BundleManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.runs import typed_result
from journeyman.training.merge import read_adapter
from journeyman.verifying import verify
from test_pipeline import call

ALL = ("adapter", "hf", "gguf", "ollama", "llama.cpp", "vllm", "lmstudio", "docker")
CYCLONEDX: dict[str, Any] = {
    "type": "object",
    "required": ["bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"],
    "additionalProperties": False,
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "serialNumber": {"pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        "version": {"type": "integer", "minimum": 1},
        "metadata": {"type": "object", "properties": {"component": {"$ref": "#/$defs/component"}}},
        "components": {"type": "array", "minItems": 3, "items": {"$ref": "#/$defs/component"}},
        "dependencies": {
            "type": "array",
            "items": {"type": "object", "required": ["ref"], "properties": {"dependsOn": {"uniqueItems": True}}},
        },
    },
    "$defs": {
        "component": {
            "type": "object",
            "required": ["type", "name"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["application", "library", "data", "machine-learning-model"]},
                "name": {"type": "string"},
                "bom-ref": {"type": "string", "minLength": 1},
                "version": {"type": "string"},
                "purl": {"type": "string", "pattern": "^pkg:pypi/"},
                "hashes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["alg", "content"],
                        "properties": {"alg": {"const": "SHA-256"}, "content": {"pattern": "^[a-fA-F0-9]{64}$"}},
                    },
                },
                "licenses": {"type": "array"},
                "properties": {
                    "type": "array",
                    "items": {"required": ["name", "value"], "properties": {"value": {"type": "string"}}},
                },
            },
        }
    },
}
"""The parts of https://cyclonedx.org/schema/bom-1.6.schema.json that the bills use."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on a folder, whose bundle has a GGUF file of it, and every target."""
    place = tmp_path_factory.mktemp("targets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        base = chat_folder(place / "Tiny-1M", "llama", dtype="bfloat16")
        toml = 'quantizations = ["F16"]\nregression_suite = false\nthreads = 1\n'
        folder = write_run(place / "run", base, [log_row(i) for i in range(40)], toml)
        targets = [word for name in ALL for word in ("--target", name)]
        assert call("export", "--dir", folder, "--override", "a test", *targets) == 3
        yield folder


def _bundle(place: Path) -> BundleManifest:
    return BundleManifest.model_validate(read_json(place / "manifest.json")["result"])


def test_every_target_answers_the_golden_prompt_where_its_program_is_here(finished: Path) -> None:
    tried: dict[str, list[tuple[str, str]]] = {}
    for name in ALL:
        target = _bundle(finished / "targets" / name).target
        assert target is not None and target.name == name
        tried[name] = [(trial.program.split()[0], trial.outcome) for trial in target.trials]
        assert all(one.tokens > 4 for one in target.trials if one.outcome != "not_tried")
        assert all((one.why is None) == (one.outcome != "not_tried") for one in target.trials)
        golden = read_json(finished / "targets" / name / "golden.json")
        assert all(one["base_nats"] > 0.5 for one in golden["answers"]), "the base alone would be refused"
        assert golden == read_json(finished / "targets" / "adapter" / "golden.json")
    here = ("llama.cpp", "same")
    assert tried["llama.cpp"] == [here]
    assert tried["ollama"] == [here, ("ollama", "not_tried")] and tried["docker"] == [here, ("docker", "not_tried")]
    assert tried["adapter"][0] == here and tried["adapter"][1][0] == "transformers"
    assert tried["gguf"][0][1] in ("same", "near") and tried["lmstudio"][1] == ("LM", "not_tried")
    assert tried["hf"][0][1] in ("same", "near") and tried["vllm"][1] == ("vLLM", "not_tried")


def test_only_files_that_were_evaluated_count_as_evaluated(finished: Path) -> None:
    evaluated = typed_result(finished, "export", BundleManifest)
    for name in ALL:
        place = finished / "targets" / name
        bundle = _bundle(place)
        assert bundle.target is not None and not bundle.target.deployable, "it was exported despite the verdict"
        assert bundle.target.evaluated == (name in ("adapter", "ollama", "llama.cpp", "docker")), name
        card = (place / "README.md").read_text()
        assert re.search(r"^- teacher: terms not known; \d+ rows$", card, re.MULTILINE)
        assert "its license: not known" in card and "## Limits" in card and "held-out test rows" in card
        assert ("**NOT EVALUATED, NOT DEPLOYABLE.**" in card) != bundle.target.evaluated
        for adapter, file in bundle.adapter_files.items() if bundle.target.evaluated else ():
            assert hash_of_file(place / file) == evaluated.adapter_sha256[adapter] == bundle.adapter_sha256[adapter]
        if bundle.base_file and bundle.target.evaluated:
            assert hash_of_file(place / bundle.base_file) == evaluated.base_sha256


def test_the_merged_file_has_the_product_in_it_and_nothing_else_changed(finished: Path) -> None:
    place = finished / "targets" / "gguf"
    merged, base = GgufFile(place / "model.gguf"), GgufFile(finished / "07-bundle" / "base.gguf")
    updates, scale = read_adapter(finished / "04-adapter" / "adapter.gguf")
    assert scale == 32 / 4 and merged.tensors.keys() == base.tensors.keys()
    for name in base.tensors:
        now, before = merged.tensor(name), base.tensor(name)
        if name in updates:
            a, b = (one.double().numpy() for one in updates[name])
            before = (before.astype(np.float64) + scale * b @ a).astype(np.float16)
            np.testing.assert_allclose(now, before, rtol=1e-3, atol=1e-6)
        else:
            np.testing.assert_array_equal(now, before)
    assert _bundle(place).target.merged == "F16"  # type: ignore[union-attr]
    assert merged.metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16


def test_the_merged_folder_is_what_peft_merges(finished: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(finished.parent / "Tiny-1M", dtype=torch.bfloat16)
    theirs = peft.PeftModel.from_pretrained(loaded, finished / "04-adapter").merge_and_unload().state_dict()
    ours = load_file(finished / "targets" / "hf" / "model" / "model.safetensors")
    before = load_file(finished.parent / "Tiny-1M" / "model.safetensors")
    assert ours.keys() == before.keys()
    for name, value in ours.items():
        assert value.dtype == before[name].dtype
        torch.testing.assert_close(value, theirs[name], rtol=2**-7, atol=1e-4)
    changed = {name.split(".")[-2] for name in ours if not torch.equal(ours[name], before[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_scripts_name_files_that_are_there(finished: Path) -> None:
    for place in sorted((finished / "targets").iterdir()):
        for script in place.glob("*.sh"):
            subprocess.run(["sh", "-n", script], check=True)
            words = [word.rpartition("=")[2] for word in script.read_text().split()]
            files = [word for word in words if word.endswith(".gguf") or word.startswith("./")]
            assert files and all((place / word).exists() for word in files), (script, files)
    assert "--lora-modules coder=./peft " in (finished / "targets" / "vllm" / "vllm.sh").read_text()
    assert (finished / "targets" / "vllm" / "peft" / "adapter_config.json").is_file()
    settings = _bundle(finished / "targets" / "vllm").settings
    as_evaluated = {name: settings[name] for name in ("temperature", "max_new_tokens")}
    words = shlex.split((finished / "targets" / "vllm" / "vllm.sh").read_text().splitlines()[-1])
    assert json.loads(words[words.index("--override-generation-config") + 1]) == as_evaluated
    told = ["--temp", str(settings["temperature"]), "--predict", str(settings["max_new_tokens"])]
    for script in (finished / "targets/llama.cpp/llama-server.sh", finished / "07-bundle" / "llama-server.sh"):
        words = shlex.split(script.read_text().splitlines()[-1])
        assert [words[words.index(flag) + number] for flag in told[::2] for number in (0, 1)] == told
    docker = (finished / "targets" / "docker" / "Dockerfile").read_text().splitlines()
    copied = json.loads(next(line for line in docker if line.startswith("COPY "))[5:])
    assert all((finished / "targets" / "docker" / name).is_file() for name in copied[:-1])
    assert json.loads(docker[-1].removeprefix("CMD "))[:4] == ["--model", "base.gguf", "--lora", "adapter.gguf"]
    assert json.loads(docker[-1].removeprefix("CMD "))[-8:-4] == told
    assert '"lora"' not in (finished / "targets" / "docker" / "compose.yaml").read_text(), (
        "there is one adapter for all"
    )
    assert "FROM ./base.gguf\nADAPTER ./adapter.gguf" in (finished / "targets/ollama/Modelfile.coder").read_text()


def test_every_bill_has_the_shape_of_cyclonedx(finished: Path) -> None:
    for place in (finished / "07-bundle", *(finished / "targets" / name for name in ALL)):
        bill = read_json(place / "bom.cdx.json")
        jsonschema.Draft202012Validator(CYCLONEDX).validate(bill)
        refs = [one["bom-ref"] for one in bill["components"]]
        assert len(refs) == len(set(refs)) and bill["dependencies"][0]["dependsOn"] == sorted(refs)
        weights = {one["name"]: one["hashes"][0]["content"] for one in bill["components"] if "file:" in one["bom-ref"]}
        assert weights and all(hash_of_file(place / file) == digest for file, digest in weights.items())


def test_targets_verify_with_their_run_and_alone_on_another_machine(finished: Path, tmp_path: Path) -> None:
    whole_run = verify(finished)
    assert whole_run.findings == [] and whole_run.files > 100
    path = finished / "targets" / "gguf" / "model.gguf"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert [str(path) in one for one in verify(finished).findings] == [True]
    path.write_bytes(whole)
    for folder in (finished / "07-bundle", *(finished / "targets" / name for name in ALL)):
        copy = Path(shutil.copytree(folder, tmp_path / folder.name))
        assert verify(copy).findings == []
        for path in [one for one in sorted(copy.rglob("*")) if one.is_file()]:
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            assert [str(path) in one for one in verify(copy).findings] == [True], path
            path.write_bytes(whole)
        (copy / "extra").mkdir()
        (copy / "extra" / "unfinished.json").write_text("{}")
        (copy / "unfinished.json").write_text("{}")
        (copy / "prompts.json").unlink()
        found = verify(copy).findings
        assert len(found) == 3 and sum("unfinished.json: not among" in one for one in found) == 2


def test_merged_weights_are_served_only_if_the_manifest_allows_it(finished: Path, tmp_path: Path) -> None:
    for name in ("gguf", "lmstudio"):
        with pytest.raises(NotDeployable, match="another file than the one that was"):
            Server(finished / "targets" / name, 0)
    with pytest.raises(InputError, match="contains no base"):
        Server(finished / "targets" / "adapter", 0)
    with Server(Path(shutil.copytree(finished / "targets" / "llama.cpp", tmp_path / "copy")), 0) as server:
        expected = server.chat("coder", "Task: x").text
    command = ["export", "--dir", finished, "--override", "a test", "--out", tmp_path, "--target", "gguf"]
    assert call(*command, "--allow-unevaluated", "a demo") == 3
    assert "Served nevertheless, because: a demo" in (tmp_path / "gguf" / "README.md").read_text()
    with Server(tmp_path / "gguf", 0) as server:
        assert server.chat("coder", "Task: x").text == expected


def test_another_answer_than_the_evaluated_one_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter in another form that was damaged after training would be found before the command says done."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    folder = run / "04-adapter"
    tensors = load_file(folder / "adapter_model.safetensors")
    wrong = {name: -value if ".lora_B." in name else value for name, value in tensors.items()}
    save_file(wrong, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _sign_again(run, "04-adapter", "adapter_model.safetensors")
    before = sorted(path.name for path in (run / "targets" / "hf").iterdir())
    assert call("export", "--dir", run, "--override", "a test", "--redo", "--target", "hf") == 1
    message = capsys.readouterr().err
    assert "does not answer the golden prompt" in message and "--quantization" not in message, "it is a folder"
    assert sorted(path.name for path in (run / "targets" / "hf").iterdir()) == before, "the old one stays"
    assert not list((run / "targets").glob(".*.tmp"))


def _sign_again(run: Path, stage: str, name: str) -> None:
    """Forges a stage's manifest, so that the changed file counts as the one that was made."""
    from journeyman.lineage import manifest_bytes, own_hash

    path = run / stage / "manifest.json"
    data = read_json(path)
    data["stamp"]["files"][name] = hash_of_file(run / stage / name)
    data["stamp"]["sha256"] = own_hash(data)
    path.write_bytes(manifest_bytes(data))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target", "exe"], "no such target"),
        (["--target", "gguf", "--quantization", "Q1_K"], "no such format"),
        (["--target", "hf", "--quantization", "Q8_0"], "no effect"),
        (["--out", "x"], "no effect without --target"),
        (["--target", "gguf", "--allow-unevaluated", " "], "the reason is empty"),
        (["--target", "ollama", "--allow-unevaluated", "a demo"], "no effect on ollama"),
    ],
)
def test_flags_that_mean_nothing_are_refused_before_anything_runs(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", "--dir", tmp_path, *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_on_a_full_disk_nothing_is_left_and_the_old_target_stays(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--dir", finished, "--override", "a test", "--target", "gguf", "--out"]
    with small_disk(tmp_path / "disk", "4m") as disk:
        (disk / ".gguf.999999.tmp").mkdir()  # a kill left it
        assert call(*command, disk) == 3
        assert {path.name for path in disk.iterdir()} == {"gguf", ".lock"}
        for leave in (0, 4096, 16_384):
            ballast = fill(disk, leave)
            capsys.readouterr()
            assert call(*command, disk) == 1
            assert "the disk is full" in capsys.readouterr().err
            ballast.unlink()
            assert {path.name for path in disk.iterdir()} == {"gguf", ".lock"} and verify(disk / "gguf").findings == []


def test_what_another_export_is_making_in_the_same_folder_stays(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shared"
    (out / ".gguf.999999.tmp").mkdir(parents=True)
    command = ["export", "--dir", finished, "--override", "a test", "--target", "adapter", "--out", out]
    with locked(out):
        assert call(*command) == 2
    assert "another journeyman is running" in capsys.readouterr().err and (out / ".gguf.999999.tmp").is_dir()
    assert call(*command) == 3 and not (out / ".gguf.999999.tmp").exists()
    assert call(*command[:-1], finished) == 3, "the command itself has the lock of the run's folder"
    shutil.rmtree(finished / "adapter")


def test_a_target_of_another_bundle_is_noted(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    bill = (run / "07-bundle" / "bom.cdx.json").read_bytes()
    assert call("export", "--dir", run, "--override", "another reason", "--redo") == 3
    assert (run / "07-bundle" / "bom.cdx.json").read_bytes() == bill, "the same files have the same bill"
    found = verify(run)
    assert found.findings == [] and sum("made from another bundle" in note for note in found.notes) == len(ALL)


def test_a_file_has_no_folder_to_merge_into_and_a_place_is_not_overwritten(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(toml="regression_suite = false\nfew_shot = 0\nthreads = 1\n")
    command = ["export", "--dir", run, "--override", "a test", "--out", tmp_path / "out"]
    assert call(*command, "--target", "gguf", "--quantization", "Q8_0", "--target", "hf") == 1
    assert "--target hf: needs the base's Hugging Face folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "gguf").mkdir(parents=True)
    assert call(*command, "--target", "gguf") == 2
    assert "exists and is not a target" in capsys.readouterr().err
    (tmp_path / "out" / "gguf").rmdir()
    assert call(*command, "--target", "gguf", "--target", "adapter") == 3
    said = capsys.readouterr().out
    assert "NOT DEPLOYABLE: not evaluated: base and adapter were merged to F32" in said
    assert "transformers loads a base from a folder" in said and re.search(r"answers with (\d+) of \1 golden", said)


def test_adapters_of_single_roles_are_merged_and_tried_each_by_itself(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [log_row(i, ("coder", "a/b; rm -rf")[i % 2]) for i in range(80)]
    run = make_run(rows, "regression_suite = false\nfew_shot = 0\nthreads = 1\n")
    command = ["export", "--dir", run, "--override", "a test", "--set", "train.adapters=per-role"]
    names = ("gguf", "adapter", "llama.cpp", "docker")
    assert call(*command, *(word for name in names for word in ("--target", name))) == 3
    made = {path.name: _bundle(path) for path in (run / "targets").glob("[!.]*")}
    other = next(name for name in made if name.startswith("gguf-a"))
    assert made.keys() == {"gguf-coder", other, "adapter", "llama.cpp", "docker"}
    assert re.fullmatch(r"gguf-[A-Za-z0-9_-]+", other)
    assert made["gguf-coder"].roles == ["coder"] and made[other].roles == ["a/b; rm -rf"]
    assert made[other].system_prompts == {"a/b; rm -rf": "You are a a/b; rm -rf."}
    assert hash_of_file(run / "targets" / other / "model.gguf") != hash_of_file(run / "targets/gguf-coder/model.gguf")
    for bundle in made.values():
        assert bundle.target is not None and set(bundle.adapter_sha256) == set(bundle.roles)
        assert {trial.adapter for trial in bundle.target.trials} == set(bundle.roles)
    for script in (run / "targets").rglob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)
        assert "rm -rf" not in re.sub(r"^#.*$", "", script.read_text(), flags=re.MULTILINE)
    assert "rm -rf" not in (run / "targets" / "docker" / "Dockerfile").read_text()
    compose = (run / "targets" / "docker" / "compose.yaml").read_text().splitlines()
    (hint,) = [line for line in compose if '"lora": [{"id": N, "scale": 1.0}]' in line]
    assert hint.startswith("# ") and "1 is coder" in hint and "answers untuned" in hint
    assert all(line.startswith("# ") for line in compose[: compose.index("services:")])
    for place in ("targets/docker", "targets/llama.cpp", "07-bundle"):
        assert "the base answers untuned" in (run / place / "README.md").read_text()
    for place in ("targets/gguf-coder", "targets/docker"):
        assert "No role stays with the teacher." in (run / place / "README.md").read_text(), "it is in another target"
    assert verify(run).findings == []
