"""The whole loop on a tiny model: skip, resume, refuse, redo; and what the commands print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from conftest import log_row
from journeyman.api.hosting import open_listener
from journeyman.artifacts import hash_of, read_json, read_model, read_rows, sha256_of, write_json
from journeyman.checksum_lines import sealed
from journeyman.cli.app import app, main
from journeyman.cli.serve import serve_bundle
from journeyman.config import load_config
from journeyman.errors import InputError, Interrupted, UsageError
from journeyman.evidence import RESPONSES
from journeyman.inference.engines import running_engine
from journeyman.lineage import UNFINISHED, manifest_data, result_hash
from journeyman.manifests import BundleManifest, PlanManifest
from journeyman.pipeline import STAGES, Run, read_result, run_pipeline, typed_result
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.reasons.planning import TooFewTestRows, WarmupNeverEnds
from journeyman.records import Message, Score
from journeyman.serving.app import make_app
from journeyman.serving.dialects.chat import read_request
from journeyman.serving.errors import RequestError
from journeyman.serving.preparing import conversation_of, engine_request, ignored_of
from journeyman.training.checkpoint import TrainingState, _sealed

MakeRun = Callable[..., Path]


def call(*arguments: str | Path) -> int:
    """Runs a command in this process and returns its exit code."""
    before = sys.argv
    sys.argv = ["journeyman", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A run with a bundle, exported despite the verdict: a tiny random model answers nothing."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "logs.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(40)))
    (folder / "journeyman.toml").write_text(
        f'[base]\nmodel = "{tiny_gguf}"\n[data]\nsources = ["*.jsonl"]\n[train]\nepochs = 1\n'
        "[train.lora]\nrank = 4\n[evaluate]\nmax_new_tokens = 8\ncontext = 512\n"
    )
    assert call("export", "--dir", folder) == 3
    assert call("export", "--dir", folder, "--override", "a test") == 3, "the verdict is still not deploy"
    return folder


def test_every_stage_leaves_its_folder_and_the_lineage_holds(finished: Path) -> None:
    for stage in STAGES:
        manifest = read_json(finished / stage.folder / "manifest.json")
        for name, digest in manifest["stamp"]["files"].items():
            assert sha256_of(finished / stage.folder / name) == digest
    evaluation = read_result(finished, "evaluate")[1].model_dump()
    assert evaluation["adapter_sha256"]["all"] == sha256_of(finished / "04-adapter" / "adapter.gguf")
    assert evaluation["files"]["tuned"]["identical_prompts"] == evaluation["rows"] == 4


def test_the_bundle_serves_the_very_files_that_were_evaluated(finished: Path) -> None:
    bundle, stamp = finished / "07-bundle", read_result(finished, "export")[1].model_dump()
    assert sha256_of(bundle / "adapter.gguf") == stamp["adapter_sha256"]["all"]
    assert sha256_of(bundle / "base.gguf") == stamp["base_sha256"]
    assert stamp["override"] == "a test"
    card = (bundle / "README.md").read_text()
    assert "Exported despite the verdict" in card and "a test" in card
    modelfile = (bundle / "Modelfile.coder").read_text()
    assert "FROM ./base.gguf\nADAPTER ./adapter.gguf" in modelfile and "You are a coder." in modelfile
    assert "--lora adapter.gguf" in (bundle / "llama-server.sh").read_text()


def test_the_report_is_one_file_that_escapes_what_models_wrote(finished: Path) -> None:
    page = (finished / "06-decision" / "report.html").read_text()
    assert "<svg" in page and "http://" not in page and "https://" not in page


def test_a_second_run_makes_nothing_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("decide", "--dir", finished) == 3
    assert capsys.readouterr().err.count("unchanged") == 6


def test_status_and_show(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", "--dir", finished) == 0
    assert "40 rows read" in capsys.readouterr().out
    for stage in STAGES:
        assert call("show", stage.name, "--dir", finished) == 0
        capsys.readouterr()
        assert call("show", stage.name, "--json", "--dir", finished) == 0
        assert json.loads(capsys.readouterr().out)["stamp"]["stage"] == stage.name


def test_a_changed_setting_is_refused_by_name_and_redone_on_request(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    assert call("plan", "--dir", folder) == 0
    assert call("plan", "--dir", folder, "--set", "train.lora.rank=2") == 1
    message = capsys.readouterr().err
    assert "train.lora.rank: 4, now 2" in message and "--redo" in message
    assert call("plan", "--dir", folder, "--set", "train.lora.rank=2", "--redo") == 0
    assert len(list((folder / "superseded").iterdir())) == 1


def test_another_check_does_not_train_again(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    call("decide", "--dir", folder)
    adapter = (folder / "04-adapter" / "adapter.gguf").stat().st_mtime_ns
    capsys.readouterr()
    call("decide", "--dir", folder, "--redo", "--set", 'roles.coder.checks=["answered", "python_parses"]')
    said = capsys.readouterr().err
    assert "03 plan      made" in said and "04 train     unchanged" in said and "05 evaluate  made" in said
    assert (folder / "04-adapter" / "adapter.gguf").stat().st_mtime_ns == adapter


class _StopsTraining(SilentReporter):
    """Asks to stop once training has made a step."""

    stop_requested = False

    def advance(self, done: float, note: str = "") -> None:
        self.stop_requested = self.stop_requested or "step 1/" in note


def test_training_that_an_older_version_began_is_resumed(make_run: MakeRun) -> None:
    """It recorded the hash of the whole plan, and its checkpoints carry the hash of what it recorded."""
    folder = make_run()
    run = Run(folder, load_config(folder / "journeyman.toml"))
    with pytest.raises(Interrupted):
        list(run_pipeline(run, "train", _StopsTraining()))
    record = folder / "04-adapter" / UNFINISHED
    recorded = read_json(record)
    older = {**recorded, "03-plan": result_hash(manifest_data(folder / "03-plan" / "manifest.json", "plan"))}
    assert older != recorded
    write_json(record, older)
    states = list((folder / "04-adapter" / "checkpoints").rglob("state.json"))
    for path in states:
        state = read_model(path, TrainingState)
        assert state.fingerprint == hash_of(recorded)
        path.write_bytes(_sealed(state.model_copy(update={"fingerprint": hash_of(older)})))
    assert states
    *_, trained = run_pipeline(run, "train", SilentReporter())
    assert trained.action == "resumed"


def test_changed_logs_are_refused(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    assert call("ingest", "--dir", folder) == 0
    with (folder / "logs.jsonl").open("a") as file:
        file.write(json.dumps(log_row(77)) + "\n")
    assert call("ingest", "--dir", folder) == 1
    assert "source logs.jsonl" in capsys.readouterr().err


def test_train_cannot_see_the_sealed_rows(make_run: MakeRun) -> None:
    folder = make_run()
    assert call("plan", "--dir", folder) == 0
    (folder / "02-dataset/sealed/test.jsonl").unlink()
    assert call("train", "--dir", folder) == 0


def test_ctrl_c_in_training_saves_and_the_same_command_goes_on(make_run: MakeRun) -> None:
    folder = make_run()
    command = [sys.executable, "-m", "journeyman", "train", "--set", "train.epochs=400", "--set", "train.patience=999"]
    child = subprocess.Popen([*command, "--dir", str(folder)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    metrics = folder / "04-adapter" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert b"The same command resumes from here" in stderr and b"Traceback" not in stderr
    assert list((folder / "04-adapter" / "checkpoints").glob("step-*"))
    again = subprocess.run([*command[:4], "--set", "train.epochs=400", "--dir", str(folder)], capture_output=True)
    assert again.returncode == 1 and b"train.patience" in again.stderr, "other settings do not resume"


def test_an_interrupted_evaluation_asks_only_what_is_missing(make_run: MakeRun) -> None:
    folder = make_run()
    assert call("train", "--dir", folder) == 0
    call("evaluate", "--dir", folder)
    place, kept = folder / "05-evaluation", folder / RESPONSES
    inputs = read_json(place / "manifest.json")["stamp"]["inputs"]
    answers = kept.read_text().splitlines(keepends=True)
    marked = []
    for line in answers[:3]:
        content = {key: value for key, value in json.loads(line).items() if key != "sum"}
        content["answer"]["latency_s"] += 1000
        marked.append(sealed(content).decode())
    kept.write_text("".join(marked) + answers[3][:20])
    (place / "manifest.json").unlink()
    (place / "unfinished.json").write_text(json.dumps(inputs))
    assert call("evaluate", "--dir", folder) == 0
    now = kept.read_text().splitlines(keepends=True)
    assert now[:3] == marked and len(now) == len(answers)


def test_another_check_asks_nothing_again_and_another_adapter_only_its_own(make_run: MakeRun) -> None:
    folder = make_run()
    assert call("evaluate", "--dir", folder) == 0
    kept = folder / RESPONSES

    def peak_memory() -> float:
        manifest = read_json(folder / "05-evaluation" / "manifest.json")
        return float(manifest["result"]["files"]["tuned"]["peak_memory_gb"])

    first, peak = kept.read_text(), peak_memory()
    check = ("--set", "roles.coder.checks=['answered', 'similarity']", "--redo", "--dir", folder)
    assert call("evaluate", *check) == 0
    assert kept.read_text() == first
    assert peak_memory() == peak
    assert call("evaluate", "--set", "train.learning_rate=0.03", *check) == 0
    new = [json.loads(line)["answer"]["arm"] for line in kept.read_text().removeprefix(first).splitlines()]
    assert new and set(new) == {"tuned"}


def test_two_at_once_are_refused(make_run: MakeRun) -> None:
    import fcntl

    folder = make_run()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call("ingest", "--dir", folder) == 2


def _bad_toml(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "journeyman.toml").write_text(text) and None  # type: ignore[return-value]


def _logs(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "logs.jsonl").write_bytes(data) and None  # type: ignore[return-value]


BAD: dict[str, tuple[Callable[[Path], Any], str, int]] = {
    "no toml": (lambda f: (f / "journeyman.toml").unlink(), "journeyman init", 2),
    "not toml": (_bad_toml("[base"), "not valid TOML", 2),
    "an unknown key": (_bad_toml("[train]\nlearning_rat = 1"), "Did you mean train.learning_rate?", 2),
    "an unknown section": (_bad_toml("[trian]\nepochs = 1"), "Did you mean train?", 2),
    "an unknown endpoint key": (
        _bad_toml("[evaluate.endpoints.far]\nurl = 'http://x'\nmodel = 'm'\nkey_en = 'K'"),
        "Did you mean evaluate.endpoints.far.key_env?", 2,
    ),
    "an unknown credit key": (
        _bad_toml("[[curate.credit]]\nrole = 'a'\notherwis = 0.5\nneeds = [{role = 'b', matches = 'x'}]"),
        "Did you mean curate.credit.0.otherwise?", 2,
    ),
    "an unknown role key": (_bad_toml("[roles.coder]\ncheck = []"), "Did you mean roles.coder.checks?", 2),
    "a value out of range": (_bad_toml("[train]\nepochs = 0"), "train.epochs = 0", 2),
    "a value that is no number": (_bad_toml("[train]\nlearning_rate = nan"), "train.learning_rate = nan", 2),
    "an unknown check": (_bad_toml("[roles.coder]\nchecks = ['python_test']"), "python_tests", 2),
    "no base": (_bad_toml("[base]\nmodel = 'none.gguf'\n[data]\nsources = ['logs.jsonl']"), "none.gguf", 1),
    "a base that is no gguf": (
        _bad_toml("[base]\nmodel = 'logs.jsonl'\n[data]\nsources = ['logs.jsonl']"), "not a GGUF file", 1,
    ),
    "no logs": (lambda f: (f / "logs.jsonl").unlink(), "no such file", 2),
    "empty logs": (_logs(b""), "no usable interaction", 1),
    "logs that are no JSON": (_logs(b"hello\n"), "not JSON", 1),
    "logs that are no UTF-8": (_logs(b"\xff\xfa\n"), "not UTF-8", 1),
    "a folder as log": (lambda f: ((f / "logs.jsonl").unlink(), (f / "logs.jsonl").mkdir()), "no log file in", 2),
    "rows without answers": (_logs(json.dumps(log_row(1, output="")).encode()), "empty 1", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_loses_nothing(
    name: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    damage, expected, code = BAD[name]
    damage(folder)
    assert call("plan", "--dir", folder) == code
    message = capsys.readouterr().err
    assert expected in message and "Traceback" not in message
    assert sum(line.startswith("journeyman:") for line in message.splitlines()) == 1
    assert not list(folder.glob(".staged*"))


def test_a_full_disk_is_one_sentence_and_the_old_result_stays(make_run: MakeRun) -> None:
    folder = make_run()
    assert call("curate", "--dir", folder) == 0
    kept = (folder / "02-dataset" / "manifest.json").read_bytes()
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); import signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from journeyman.cli.app import main; main()"
    )
    arguments = ["curate", "--set", "curate.seed=5", "--redo", "--dir", str(folder)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "File too large" in done.stderr
    (aside,) = (folder / "superseded").iterdir()
    assert (aside / "manifest.json").read_bytes() == kept


def test_init_writes_a_config_that_is_valid_and_never_overwrites(tmp_path: Path) -> None:
    assert call("init", tmp_path / "new") == 0
    assert call("init", tmp_path / "new") == 2
    from journeyman.config import load_config

    assert load_config(tmp_path / "new" / "journeyman.toml").decide.min_success == 0.98


def test_help_does_not_load_torch_and_is_quick_to_import() -> None:
    code = "import sys; from journeyman.cli.app import app; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]
    assert app.info.help


def test_the_attention_preset_is_the_documented_recipe(make_run: MakeRun) -> None:
    from journeyman.config import parse_config

    train = parse_config({"train": {"preset": "attention-r8", "epochs": 5}}, "toml").train
    lora = train.lora
    assert (lora.rank, lora.alpha, lora.dropout) == (8, 32, 0.1)
    assert lora.targets == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (train.epochs, train.batch_size, train.gradient_accumulation) == (5, 2, 8)
    assert (train.learning_rate, train.weight_decay, train.max_grad_norm) == (2e-4, 0.01, 1.0)


def test_the_plan_counts_exactly_and_warns_of_a_warm_up_that_never_ends(make_run: MakeRun) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--set", "train.warmup_steps=50") == 3
    made = typed_result(folder, "plan", PlanManifest)
    plan = made.model_dump()
    # 2 layers, rank 4: q 32+32, k and v 16+32, o 32+32, gate and up 64+32, down 32+64
    assert plan["trainable_parameters"] == 2 * 4 * (64 + 2 * 48 + 64 + 3 * 96)
    assert plan["total_steps"] == 2 * 8
    warnings = [warning.reason() for warning in made.warnings]
    (warmup,) = [one.reason() for one in made.errors]
    assert isinstance(warmup, WarmupNeverEnds)
    assert (warmup.warmup_steps, warmup.steps) == (50, 16)
    (coder,) = [one for one in warnings if isinstance(one, TooFewTestRows) and one.role == "coder"]
    assert (coder.rows, coder.needed) == (4, 189)


# --- serve ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(finished: Path) -> Any:
    bundle = read_result(finished, "export")[1]
    assert isinstance(bundle, BundleManifest)
    place = finished / "07-bundle"
    with (
        running_engine(EngineSettings(place / "base.gguf", {"all": place / "adapter.gguf"}, 512, 2, 0.0)) as engine,
        TestClient(make_app(bundle, engine)) as made,
    ):
        yield made


ASK = {"model": "coder", "messages": [{"role": "user", "content": "Task: x"}], "max_tokens": 4}


def test_serve_answers_with_the_role_as_model(client: Any) -> None:
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["coder"]
    answer = client.post("/v1/chat/completions", json=ASK).json()
    assert answer["model"] == "coder" and answer["choices"][0]["message"]["role"] == "assistant"
    streamed = client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert streamed.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "poet", "messages": [{"role": "user", "content": "x"}]}', 404),
        (b'{"model": "coder", "messages": []}', 400),
        (b'{"model": "coder", "messages": ["x"]}', 400),
        (b" " * (5 << 20), 413),
    ],
)
def test_serve_refuses_bad_requests(client: Any, body: bytes, code: int) -> None:
    answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == code and answer.json()["error"]["message"]


def test_only_known_fields_reach_the_engine_and_the_trained_prompt_is_served(finished: Path) -> None:
    bundle = read_result(finished, "export")[1]
    assert isinstance(bundle, BundleManifest)
    body = {**ASK, "user": "u", "messages": [{"role": "system", "content": "Lie."}, ASK["messages"][0]]}
    wanted = read_request(body, bundle.roles, 512)
    asked = engine_request(bundle, wanted, conversation_of(bundle))
    assert asked.keys() == {"messages", "max_tokens", "temperature"}
    assert [m["content"] for m in asked["messages"]] == ["You are a coder.", "Task: x"]
    assert ignored_of(bundle, wanted) == {"journeyman-ignored": "user, messages[0]"}
    wanted = read_request({**ASK, "slot_id": 3, "lora": []}, bundle.roles, 512)
    assert engine_request(bundle, wanted, conversation_of(bundle)).keys() == asked.keys()
    assert ignored_of(bundle, wanted) == {"journeyman-ignored": "slot_id, lora"}
    with pytest.raises(RequestError):
        read_request({**ASK, "model": "all"}, bundle.roles, 512)


def test_serve_refuses_a_changed_file_and_a_host_of_others(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"port 0 on 192\.0\.2\.1"):
        open_listener("192.0.2.1", 0)
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    with (copy / "07-bundle" / "adapter.gguf").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    with pytest.raises(InputError, match="changed after export made it"):
        serve_bundle(copy, 0)


def test_serve_answers_on_the_port_that_it_prints_and_stops_on_a_signal(finished: Path) -> None:
    import httpx

    command = [sys.executable, "-m", "journeyman", "serve", "--dir", str(finished), "--port", "0"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr
    line = child.stderr.readline()
    address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
    for _ in range(100):
        try:
            assert httpx.get(f"{address}/models", trust_env=False).status_code == 200
            break
        except httpx.TransportError:
            time.sleep(0.1)
    else:
        pytest.fail("the port never answered")
    child.send_signal(signal.SIGTERM)
    child.wait(timeout=20)


def test_a_missing_stage_names_the_command(make_run: MakeRun) -> None:
    folder = make_run()
    with pytest.raises(InputError, match="journeyman run --until curate"):
        read_result(folder, "curate")
    with pytest.raises(UsageError, match="unknown stage"):
        read_result(folder, "bake")
    from journeyman.config import load_config

    run = Run(folder, load_config(folder / "journeyman.toml"))
    with pytest.raises(InputError, match="has not been run"):
        run.result("curate", BundleManifest)


def test_doctor_finds_everything_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor") == 0
    printed = capsys.readouterr().out
    assert "missing" not in printed and "python_tests" in printed and "\nok       cluster     Ray" in printed


def test_show_dataset_row_shows_every_token(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "dataset", "--row", "1", "--dir", finished) == 0
    shown = capsys.readouterr().out
    assert "terminator" in shown.splitlines()[0]
    assert "⟦o⟧⟦k⟧⟦ ⟧" in shown and shown.rstrip().endswith("⟪<|im_end|>⟫") and "⟦<|im_start|>" not in shown
    assert call("show", "dataset", "--row", "1", "--split", "test", "--dir", finished) == 0
    for wrong in (["--row", "0"], ["--row", "999"], ["--row", "1", "--split", "dev"]):
        assert call("show", "dataset", *wrong, "--dir", finished) == 2
    assert call("show", "plan", "--row", "1", "--dir", finished) == 2


def test_curate_prints_the_lint_and_writes_the_report(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [log_row(n) for n in range(40)] + [log_row(50, output="Write to amy@corp.io, please.")]
    rows.append(log_row(51, status="failure"))
    folder = make_run(rows)
    assert call("ingest", "--dir", folder) == 0
    assert "replaced by placeholders: email 1" in capsys.readouterr().out
    assert call("curate", "--dir", folder) == 0
    printed = capsys.readouterr().out
    assert "41 of 42 rows are kept" in printed and "failed" in printed and "leak check: all" in printed
    assert (folder / "02-dataset" / "lint.html").is_file()
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name != "logs.jsonl"):
        assert b"amy@corp.io" not in path.read_bytes()


def test_logs_can_be_piped_in(make_run: MakeRun) -> None:
    folder = make_run()
    rows = "".join(json.dumps(log_row(n)) + "\n" for n in range(12))
    command = [sys.executable, "-m", "journeyman", "ingest", "--dir", str(folder), "--set", 'data.sources=["-"]']
    piped = subprocess.run(command, input=rows, capture_output=True, text=True, check=True)
    assert "12 rows read, 12 kept" in piped.stderr
    assert (folder / ".stdin.jsonl").stat().st_mode & 0o077 == 0
    again = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert "unchanged" in again.stderr
    rows = [log_row(n) for n in range(3)]
    (folder / ".stdin.jsonl").unlink()
    none = subprocess.run(command, input="", capture_output=True, text=True)
    assert none.returncode == 2 and "nothing was piped in" in none.stderr


def test_a_changed_source_restarts_an_unfinished_curate_without_being_asked(make_run: MakeRun) -> None:
    folder = make_run([log_row(n, status="failure") for n in range(4)])
    assert call("curate", "--dir", folder) == 1
    assert call("curate", "--dir", folder, "--set", "curate.rules.failed='keep'") == 0


@pytest.mark.parametrize("text", ["'", "secret is hunter2-Zx9", "<EMAIL_1>", "<", "a <b> <EMAIL_"])
def test_served_answers_get_their_values_back_piece_by_piece(text: str) -> None:
    from journeyman.redaction.redactor import Redactor, StreamRestorer

    seen = Redactor().conversation()
    assert seen.text("mail amy@corp.io now, or bob@corp.io") == "mail <EMAIL_1> now, or <EMAIL_2>"
    answer = f"{text} to <EMAIL_2> and <EMAIL_1>, not <EMAIL_3>"
    whole = seen.restore(answer)
    assert "bob@corp.io and amy@corp.io, not <EMAIL_3>" in whole
    for size in (1, 3, 7):
        restorer = StreamRestorer(seen)
        pieces = [restorer.feed(answer[at : at + size]) for at in range(0, len(answer), size)]
        assert "".join(pieces) + restorer.finish() == whole


def test_serve_redacts_as_ingest_does_and_restores_the_answer(finished: Path) -> None:
    from journeyman.config import DataConfig
    from journeyman.redaction.redactor import Redactor
    from journeyman.serving.preparing import served_messages
    from journeyman.sources.files import parse_line
    from journeyman.sources.reader import Reader

    call_ = {"id": "c1", "type": "function", "function": {"name": "mail", "arguments": '{"to": "amy@corp.io"}'}}
    turns = [
        {"role": "system", "content": "You are a coder, ask root@corp.io."},
        {"role": "user", "content": "Key AKIAQYLPMN5HFIQR7XYZ, mail bob@corp.io"},
        {"role": "assistant", "content": "", "tool_calls": [call_]},
        {"role": "tool", "content": "sent to amy@corp.io", "tool_call_id": "c1"},
        {"role": "user", "content": [{"type": "text", "text": "and bob@corp.io?"}]},
    ]
    line = json.dumps(
        {"request": {"messages": turns}, "response": {"choices": [{"message": {"content": "to bob@corp.io"}}]}}
    )
    (row,) = Reader(DataConfig()).records(parse_line(line.encode(), 1), "log")
    trained = Redactor().interaction(row)  # type: ignore[arg-type]
    bundle = read_result(finished, "export")[1]
    assert isinstance(bundle, BundleManifest)
    seen = conversation_of(bundle)
    served = served_messages(bundle, "coder", turns, seen)
    flat = [
        {**m, "content": m["content"] if isinstance(m["content"], str) else m["content"][0]["text"]} for m in served
    ]
    assert flat[1:] == [message.as_openai() for message in trained.messages[1:]]
    assert trained.output == "to <EMAIL_1>" and seen.restore(trained.output) == "to bob@corp.io"
    assert "AKIA" not in json.dumps(served) and "corp.io" not in json.dumps(served[1:])
    assert trained.messages[0].content == "You are a coder, ask <SYSTEM_EMAIL_1>."


def test_a_streamed_answer_says_what_the_whole_one_says(client: Any) -> None:
    """That values come back in it is asserted in tests/serving, where the engine's words are known."""
    body = {**ASK, "messages": [{"role": "user", "content": "mail amy@corp.io"}]}
    whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    streamed = client.post("/v1/chat/completions", json={**body, "stream": True})
    assert streamed.status_code == 200 and streamed.text.endswith("\n\ndata: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    assert said == whole and {event["model"] for event in events} == {"coder"}


def test_junit_xml_tells_every_row_and_the_verdict(finished: Path) -> None:
    suites = {suite.get("name"): suite for suite in ElementTree.parse(finished / "06-decision" / "junit.xml").getroot()}
    decision = read_json(finished / "06-decision" / "manifest.json")["result"]
    verdicts = [row for row in read_rows(finished / "05-evaluation" / "scores.jsonl", Score) if row.arm == "tuned"]
    assert suites.keys() == decision["roles"].keys()
    for role, suite in suites.items():
        cases = {case.get("name"): [child.tag for child in case] for case in suite}
        deployed = decision["roles"][role]["verdict"] == "deploy"
        assert cases.pop("verdict") == ([] if deployed else ["failure"])
        tags = {"pass": [], "fail": ["failure"], "unscored": ["skipped"]}
        assert cases == {row.id: tags[row.outcome] for row in verdicts if row.role == role}
        assert int(suite.get("failures") or 0) == len(suite.findall(".//failure"))


def test_each_role_can_have_an_adapter_of_its_own(make_run: MakeRun) -> None:
    rows = [log_row(i, role="coder" if i % 3 else "web tester") for i in range(60)]
    folder = make_run(rows=rows, name="roles")
    setting = ("--set", "train.adapters=per-role", "--dir", folder)
    assert call("evaluate", *setting) == 0
    assert call("export", *setting, "--override", "to look at the bundle") in (0, 3)
    trained = read_json(folder / "04-adapter" / "manifest.json")["result"]["adapters"]
    splits = read_json(folder / "02-dataset" / "manifest.json")["result"]["splits"]
    assert {name: one["total_steps"] for name, one in trained.items()} == {
        role: 2 * -(-counts["train"] // 4) for role, counts in splits.items()
    }
    hashes = read_json(folder / "05-evaluation" / "manifest.json")["result"]["adapter_sha256"]
    assert len(set(hashes.values())) == 2, "two roles, two adapters"
    bundle = read_json(folder / "07-bundle" / "manifest.json")["result"]
    for role, file in bundle["adapter_files"].items():
        assert sha256_of(folder / "07-bundle" / file) == hashes[role]
        modelfiles = [path.read_text() for path in (folder / "07-bundle").glob("Modelfile.*")]
        assert sum(f"ADAPTER ./{file}" in text for text in modelfiles) == 1
    assert (folder / "07-bundle" / "llama-server.sh").read_text().count("--lora ") == 2
    assert "web tester" in (folder / "06-decision" / "report.html").read_text()
    assert all("/" not in file and " " not in file for file in bundle["adapter_files"].values())


def test_the_engine_answers_each_role_with_its_own_adapter(make_run: MakeRun, tiny_gguf: Path) -> None:
    files = {}
    for role, rate in (("coder", "1e-2"), ("tester", "3e-2")):
        other = make_run(name=role)
        assert call("train", "--dir", other, "--set", f"train.learning_rate={rate}") == 0
        files[role] = other / "04-adapter" / "adapter.gguf"
    asked = [Message(role="user", content="Task: amber birch")]

    def answers(adapters: dict[str, Path]) -> list[str]:
        with running_engine(EngineSettings(tiny_gguf, adapters, 512, 2, 0.0)) as engine:
            return [
                engine.generate(Question("x", role, "", asked, 12, adapter=adapter)).text
                for role in files
                for adapter in (None, engine.settings.adapter_of(role))
            ]

    both = answers(files)
    alone = {role: answers({"all": file}) for role, file in files.items()}
    assert both == [alone["coder"][0], alone["coder"][1], alone["tester"][2], alone["tester"][3]]
    assert len(set(both)) == 3, "the base, and two adapters that answer differently"
    assert answers({"tester": files["tester"]})[:2] == [both[0]] * 2, "no adapter of its own: the base answers"
