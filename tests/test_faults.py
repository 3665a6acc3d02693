"""Full and read-only disks, signals, dead workers, changed logs, odd environments: one error, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from conftest import log_row, write_run, write_tiny_gguf
from faults import (
    ENV,
    adopting,
    below,
    command,
    comparable,
    fill,
    hurried,
    journeyman,
    leftovers,
    small_disk,
    start,
    survivors,
    wait_until,
)
from journeyman.artifacts import expanded
from journeyman.cli.app import main
from journeyman.cli.background import describe
from journeyman.config import load_config
from journeyman.errors import DiskFull, InputChanged, InputError
from journeyman.evidence import FOLDER, RESPONSES
from journeyman.inference.response_cache import CachedResponse, ResponseCache
from journeyman.pipeline import STAGES, Run, locked, read_result, run_pipeline, stage_named
from journeyman.protocols import Question, SilentReporter
from journeyman.records import Message, Prediction
from journeyman.supervision.heartbeat import PROGRESS, Progress
from journeyman.supervision.log import LOG, last_lines
from journeyman.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from journeyman.training.metrics import LOG_NAME, Metrics

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import kill_every_stage

pytestmark = pytest.mark.slow  # each starts, disturbs and resumes whole runs

TOML = (
    "parallel = 1\nregression_suite = false\nfew_shot = 0\nthreads = 1\n[decide]\nmax_memory_gb = 64\n"
    "[roles.coder]\nchecks = ['slow.py:slow']\n"
)
SLOW = (
    "import os, time\n\ndef slow(answer, check):\n    time.sleep(float(os.environ.get('SLOW_S', 0)))\n    return True\n"
)
ENV["SLOW_S"] = "0.3"  # delays the check in the processes that the tests start, not in this one
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk, or becomes another user")
Main = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all stages finished. The tests copy it."""
    place = tmp_path_factory.mktemp("whole")
    folder = write_run(place / "run", write_tiny_gguf(place / "tiny.gguf"), [log_row(i) for i in range(40)], TOML)
    (folder / "slow.py").write_text(SLOW)
    run = Run(folder, load_config(folder / "journeyman.toml"), "a test")
    list(run_pipeline(run, "export", SilentReporter()))
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Runs journeyman in this process; returns its exit code and stderr."""

    def called(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["journeyman", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().err

    return called


@pytest.fixture
def nothing_survives() -> Iterator[None]:
    """Checks that every process the test starts, workers and engines included, has ended after the test."""
    with adopting():
        known = below()
        yield
        assert survivors(known) == []


def up_to(stage: str, whole: Path, place: Path) -> Path:
    """A copy of the run in which `stage` is the next to run."""
    numbers = [one.folder for one in STAGES]
    later = numbers[numbers.index(stage_named(stage).folder) :]
    dropped = [*later, *([FOLDER] if stage != "decide" and stage != "export" else [])]
    shutil.copytree(whole, place, ignore=lambda folder, names: [n for n in names if n in dropped], dirs_exist_ok=True)
    return place


def one_sentence(said: str) -> str:
    """The error message, after checking that it is one line without a traceback."""
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("journeyman: ")]
    assert len(errors) == 1, said
    return errors[0]


@root_only
@pytest.mark.parametrize("stage", [one.name for one in STAGES])
def test_a_full_disk_is_one_sentence_at_every_stage_and_the_run_goes_on(
    stage: str, whole: Path, tmp_path: Path, call: Main
) -> None:
    override = ["--override", "a test"] if stage == "export" else []
    with small_disk(tmp_path / "disk", "16m") as disk:
        folder = up_to(stage, whole, disk / "run")
        for leave in (0, 12 << 10):
            ballast = fill(disk, leave)
            code, said = call(stage, "--dir", folder, *override)
            ballast.unlink()
            if code == 0 or (folder / stage_named(stage).folder / "manifest.json").is_file():
                assert leave, "it must not end well on a full disk"
                break
            assert code == 1 and "the disk is full" in one_sentence(said) and "run it again" in said
            assert leftovers(folder) == []
        call(stage, "--dir", folder, *override)
        made, wanted = (comparable(one / stage_named(stage).folder) for one in (folder, whole))
        assert made.keys() == wanted.keys()
        assert [name for name in made if made[name] != wanted[name] and not may_differ(stage, name)] == []


def may_differ(stage: str, name: str) -> bool:
    """Whether a file contains paths of the run folder or times, which differ between runs."""
    timed = {
        "plan": ["manifest.json", "plan.md"],
        "train": ["manifest.json", "metrics.jsonl"],
        "evaluate": ["manifest.json"],
    }
    return name in timed.get(stage, []) or name in ("report.html", "lint.html")


@root_only
def test_a_full_disk_at_a_checkpoint_keeps_the_last_good_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = disk / "checkpoints"
        save_checkpoint(folder, TrainingState(fingerprint="f", step=1), {"a": torch.ones(1000)})
        (folder / ".tmp-1-999999").mkdir()  # a kill left it
        with pytest.raises(DiskFull, match=r"the disk is full \(\d MB free\)\. Free some space"):
            save_checkpoint(folder, TrainingState(fingerprint="f", step=2), {"a": torch.ones(1_000_000)})
        loaded = load_checkpoint(folder)
        assert loaded is not None and loaded[0].step == 1 and loaded[1]["a"].sum() == 1000
        assert [one.name for one in folder.iterdir()] == ["step-000001.1"]


@root_only
def test_training_goes_on_where_the_disk_was_full(whole: Path, tmp_path: Path, call: Main) -> None:
    """The disk fills up in the middle of training, while TensorBoard's thread and the log are writing."""
    with small_disk(tmp_path / "disk", "16m") as disk:
        folder = up_to("train", whole, disk / "run")
        fast = ["--set", "train.checkpoint_steps=1"]
        ballast = fill(disk, 150 << 10)
        code, said = call("train", "--dir", folder, *fast)
        assert code == 1 and "the disk is full" in one_sentence(said)
        assert load_checkpoint(folder / "04-adapter" / "checkpoints") is not None
        assert leftovers(folder) == []
        ballast.unlink()
        assert call("train", "--dir", folder, *fast)[0] == 0
        for name in ("adapter.gguf", "adapter_model.safetensors"):
            assert (folder / "04-adapter" / name).read_bytes() == (whole / "04-adapter" / name).read_bytes()
        assert steps_of(folder) == steps_of(whole)


def steps_of(folder: Path) -> list[tuple[int, bool]]:
    lines = map(json.loads, (folder / "04-adapter" / LOG_NAME).read_text().splitlines())
    return [(line["step"], "validation_loss" in line) for line in lines]


@root_only
def test_opening_on_a_full_disk_costs_no_kept_answer_and_no_metric(tmp_path: Path) -> None:
    question = Question("a", "coder", "base", [Message(role="user", content="hi")], 5)
    said = Prediction(
        id="a", role="coder", arm="base", text="x" * 3000, finish_reason="stop", latency_s=1.0, first_token_s=None,
        prompt_tokens=1, answer_tokens=1,
    )  # fmt: skip
    with small_disk(tmp_path / "disk", "64k") as disk:
        ResponseCache(disk).add("key", CachedResponse(said, None))
        with (disk / RESPONSES).open("a") as file:
            file.write('{"key": "torn')
        (disk / LOG_NAME).write_text('{"step": 1}\n{"step": 1, "validation_loss": 2}\n{"step": 2}\n{"ste')
        fill(disk)
        kept = ResponseCache(disk).find("key", question)
        assert kept is not None and kept.answer.text == said.text
        with pytest.raises(DiskFull, match="the disk is full"):
            metrics = Metrics(disk, step=1, validated_step=0)
            while True:  # the last block has some more lines
                metrics.write(2, loss=1.0)
        first = (disk / LOG_NAME).read_text().splitlines()[:2]
    assert first == ['{"step": 1}', '{"step": 2, "loss": 1.0}'], "a validation that the checkpoint does not know is cut"


@root_only
def test_a_read_only_folder_is_one_sentence_and_can_be_looked_at(whole: Path, tmp_path: Path, call: Main) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        folder = up_to("curate", whole, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, said = call("curate", "--dir", folder)
        assert code == 1 and "Read-only file system" in one_sentence(said) and str(folder) in said
        assert journeyman("status", "--dir", folder).returncode == 0


@root_only
def test_what_may_not_be_written_or_read_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    """Runs as root without root's rights, so that file modes apply."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    folder = up_to("ingest", whole, tmp_path / "run")

    def refused(*arguments: object) -> str:
        powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *command(*arguments)]
        done = subprocess.run(powerless, env=ENV, capture_output=True, text=True, timeout=120)
        assert done.returncode in (1, 2)
        return one_sentence(done.stderr)

    (folder / "logs.jsonl").chmod(0)
    assert f"{folder}/logs.jsonl: Permission denied" in refused("ingest", "--dir", folder)
    (folder / "logs.jsonl").chmod(0o644)
    folder.chmod(0o500)
    assert "Permission denied" in (said := refused("ingest", "--dir", folder)) and str(folder) in said
    (folder / "01-interactions").mkdir(mode=0o500, exist_ok=True)
    folder.chmod(0o700)
    assert f"{folder}/01-interactions" in (said := refused("ingest", "--dir", folder)) and "Make the folder" in said


def test_a_home_that_nobody_knows_is_one_sentence() -> None:
    with pytest.raises(InputError, match="this process has no home folder"):
        expanded("~no-such-user/logs.jsonl")


class Writes(SilentReporter):
    """Does something to a file after a given number of progress reports."""

    def __init__(self, after: int, what: Callable[[], Any]) -> None:
        self.left, self.what = after, what

    def begin(self, task: str, total: float, unit: str) -> None:
        self.advance(0)

    def advance(self, done: float, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            self.what()


@pytest.mark.parametrize(
    ("change", "when"), [("grown", 1), ("replaced", 1), ("grown", 3), ("cut", 3), ("gone", 3), ("replaced", 3)]
)
def test_a_log_that_changes_while_it_is_read_is_refused_and_then_read_in_full(
    change: str, when: int, tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1 the fingerprint is taken and the file is not opened yet; at 3 it is being read."""
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 1000)
    folder = write_run(tmp_path / "run", tiny_gguf, [log_row(i) for i in range(4000)])
    log = folder / "logs.jsonl"
    lines = log.read_text()
    half = lines[: lines.index("\n", len(lines) // 2) + 1]

    def happen() -> None:
        if change == "replaced":
            (folder / "new").write_text(half)
            (folder / "new").replace(log)
        elif change == "gone":
            log.unlink()
        else:
            os.truncate(log, len(half)) if change == "cut" else log.write_text(lines + half)

    run = Run(folder, load_config(folder / "journeyman.toml"))
    with pytest.raises(Exception, match=r"changed while|no such file") as refused:
        list(run_pipeline(run, "ingest", Writes(when, happen)))
    assert "logs.jsonl" in str(refused.value)
    if change == "gone":
        log.write_text(lines)
    list(run_pipeline(Run(folder, run.config), "ingest", SilentReporter()))
    made = read_result(folder, "ingest")[1].model_dump()
    assert (made["read"], made["rejected"]) == (log.read_text().count("\n"), 0)


def test_a_compressed_log_that_is_still_written_is_called_changed_not_damaged(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 1000)
    folder = write_run(tmp_path / "run", tiny_gguf, [])
    packed = gzip.compress("".join(json.dumps(log_row(i)) + "\n" for i in range(9000)).encode())
    (folder / "logs.jsonl.gz").write_bytes(packed[:-2000])
    run = Run(folder, load_config(folder / "journeyman.toml", ['data.sources=["logs.jsonl.gz"]']))
    grows = Writes(3, lambda: (folder / "logs.jsonl.gz").write_bytes(packed[:-1000]))
    with pytest.raises(InputChanged, match="changed while it was being read"):
        list(run_pipeline(run, "ingest", grows))


def test_a_second_process_is_refused_at_once_and_touches_nothing(
    whole: Path, tmp_path: Path, call: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = up_to("curate", whole, tmp_path / "run")
    kept = folder / ".stdin.jsonl"
    kept.write_text("what the first one reads\n")
    monkeypatch.setattr(sys, "stdin", (tmp_path / "other").open("w+"))
    with locked(folder):
        for name in ("ingest", "run", "curate"):
            piped = ["--set", 'data.sources=["-"]'] if name != "curate" else []
            code, said = call(name, "--dir", folder, *piped)
            assert code == 2 and "another journeyman is running" in one_sentence(said)
        assert call("run", "--detach", "--dir", folder)[0] == 2
        assert kept.read_text() == "what the first one reads\n"
        assert not (folder / PROGRESS).exists() or json.loads((folder / PROGRESS).read_text())["pid"] != os.getpid()
    assert call("stop", "--dir", folder) == (
        2,
        f"journeyman: {folder}: no journeyman is running here. See: journeyman status --dir {folder}\n",
    )


def test_a_lock_that_is_no_file_is_one_sentence(whole: Path, tmp_path: Path, call: Main) -> None:
    folder = up_to("curate", whole, tmp_path / "run")
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").mkdir()
    for name in ("curate", "stop"):
        code, said = call(name, "--dir", folder)
        assert code and ".lock: Is a directory" in one_sentence(said)


ODD = "a b'c\"d $HOME `x` ж文 -"


def test_odd_places_and_environments_change_nothing(whole: Path, tmp_path: Path, tiny_gguf: Path) -> None:
    """Every stage in a deep folder with unusual characters, without HOME, TMPDIR, a locale or a time zone."""
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    deep = tmp_path / ODD / ("x" * 200)
    deep.mkdir(parents=True)
    write_run(deep / "-run", Path("../../../tiny.gguf"), [log_row(i) for i in range(40)], TOML)
    (deep / "-run" / "slow.py").write_text(SLOW)
    env = {key: value for key, value in ENV.items() if key not in ("HOME", "LC_ALL")}
    env |= {"LANG": "C", "TZ": "No/Such", "TMPDIR": str(tmp_path / "missing")}
    asked = ["run", "--dir", "-run", "--override", "it's a test", "--set", "train.epochs=1"]
    made = journeyman(*asked, env=env, cwd=deep, stdin=subprocess.DEVNULL)
    assert "Traceback" not in made.stderr and (deep / "-run" / "07-bundle" / "manifest.json").is_file(), made.stderr
    for name in ("01-interactions", "02-dataset"):
        mine, theirs = comparable(deep / "-run" / name), comparable(whole / name)
        assert [one for one in mine if mine[one] != theirs[one] and one != "lint.html"] == []
    said = json.loads((deep / "-run" / PROGRESS).read_text())["command"]
    assert "--dir -run" in said


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-", "| head -c 1", "2>&1 >/dev/null | head -c 1"])
def test_closed_standard_files_lose_nothing(closed: str, whole: Path, tmp_path: Path) -> None:
    folder = up_to("ingest", whole, tmp_path / "run")
    line = f'"$0" -m journeyman ingest --dir "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(folder)], env=ENV, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    wait_until((folder / "01-interactions" / "manifest.json").is_file)
    assert comparable(folder / "01-interactions") == comparable(whole / "01-interactions")


def test_a_deleted_working_folder_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    folder = up_to("curate", whole, tmp_path / "run")
    line = 'mkdir "$2" && cd "$2" && rmdir "$2" && exec "$0" -m journeyman "$3" --dir "$1"'
    for where, name, code in ((str(folder), "curate", 0), (".", "run", 2), (".", "status", 0)):
        done = subprocess.run(
            ["sh", "-c", line, sys.executable, where, str(tmp_path / "gone"), name],
            env=ENV, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        if code or where == ".":
            assert done.returncode or name == "status"
        else:
            assert done.returncode == 0, done.stderr


LONG = ["--redo", "--set", "train.epochs=100000", "--set", "train.patience=99999", "--set", "plan.measure_s=0"]


def in_the_middle(stage: str, whole: Path, place: Path) -> tuple[Path, list[str], Callable[[], bool]]:
    """A folder, a command line that works on its stage for a while, and a test for being in the middle of it."""
    folder = up_to(stage, whole, place)
    made = folder / stage_named(stage).folder
    arguments = hurried(stage, "--dir", folder, workers=stage == "ingest")
    if stage == "ingest":
        rows = "".join(json.dumps(log_row(i)) + "\n" for i in range(6000))
        (folder / "logs.jsonl").write_text(rows)
        return folder, arguments, (made / ".progress.json").is_file
    if stage == "train":
        return folder, [*arguments, *LONG], lambda: (made / LOG_NAME).is_file() and len(steps_of(folder)) > 3
    return folder, arguments, (made / "predictions.jsonl").is_file  # it is judging


@pytest.mark.parametrize(
    ("stage", "number", "to_all"),
    [
        ("ingest", signal.SIGINT, False), ("ingest", signal.SIGTERM, True),
        ("train", signal.SIGHUP, False), ("evaluate", signal.SIGTERM, True),
    ],
)  # fmt: skip
def test_signals_stop_every_stage_resumable_and_leave_no_process(
    stage: str, number: signal.Signals, to_all: bool, whole: Path, tmp_path: Path, nothing_survives: None
) -> None:
    """`to_all`: workers and engines get the signal too, as under systemd."""
    folder, arguments, begun = in_the_middle(stage, whole, tmp_path / "run")
    child = start(arguments)
    wait_until(begun, child)
    for one in [*(psutil.Process(child.pid).children(recursive=True) if to_all else []), psutil.Process(child.pid)]:
        one.send_signal(number)
    said = child.communicate(timeout=120)[0]
    assert child.returncode == 130, said
    assert "The same command resumes from here" in one_sentence(said)
    assert "stopped:" in "\n".join(describe(folder))
    if stage != "train":  # which has its own tests
        assert journeyman(stage, "--dir", folder).returncode == 0
        assert (folder / stage_named(stage).folder / "manifest.json").is_file()


def test_stop_ends_an_evaluation_while_it_judges(whole: Path, tmp_path: Path, nothing_survives: None) -> None:
    folder, arguments, begun = in_the_middle("evaluate", whole, tmp_path / "run")
    child = start(arguments)
    wait_until(begun, child)
    stopped = journeyman("stop", "--dir", folder)
    assert stopped.returncode == 0 and "Resume with: journeyman run --until evaluate" in stopped.stdout
    assert child.wait(60) == 130
    said = child.communicate()[0]
    assert "answers still to be scored" in said


def test_a_dead_worker_is_one_sentence_and_the_same_command_goes_on(
    whole: Path, tmp_path: Path, nothing_survives: None
) -> None:
    folder, arguments, begun = in_the_middle("ingest", whole, tmp_path / "run")
    child = start(arguments)
    wait_until(begun, child)
    workers = [one for one in psutil.Process(child.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    assert workers
    workers[-1].kill()
    said = child.communicate(timeout=120)[0]
    assert child.returncode == 1
    died = rf"a worker process died: process {workers[-1].pid}, killed by SIGKILL, (at logs.jsonl, rows|before) "
    assert re.search(died, one_sentence(said))
    again = subprocess.run(arguments, env=ENV, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0 and read_result(folder, "ingest")[1].model_dump()["read"] == 6000, again.stderr


def test_a_dead_engine_is_one_sentence(whole: Path, tmp_path: Path, nothing_survives: None) -> None:
    folder = up_to("evaluate", whole, tmp_path / "run")
    child = start(hurried("evaluate", "--dir", folder))
    wait_until((folder / RESPONSES).is_file, child)
    for one in psutil.Process(child.pid).children():
        one.kill()
    said = child.communicate(timeout=120)[0]
    if child.returncode == 0:
        pytest.skip("it was done before the engine died")
    assert child.returncode == 1 and "the engine stopped answering" in one_sentence(said)


def test_a_clock_that_jumps_and_a_huge_log_are_no_matter(tmp_path: Path) -> None:
    now = time.time() + 7200
    progress = Progress(
        pid=os.getpid(), process_started=now, host="h", command="journeyman run", task="train", done=5, total=10,
        begun=now, begun_done=1, moved=now - 60, beat=now,
    )  # fmt: skip
    (tmp_path / PROGRESS).write_text(progress.model_dump_json())
    with (tmp_path / LOG).open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe last word\n")
    with locked(tmp_path):
        assert describe(tmp_path)[0].startswith("running: process")
    assert describe(tmp_path)[0].startswith("dead: process")
    assert last_lines(tmp_path, 1) == ["the last word"]


def test_the_work_goes_on_where_nobody_hears_it(whole: Path, tmp_path: Path, nothing_survives: None) -> None:
    """The terminal is gone and the process was started with nohup: every write to stderr fails."""
    folder = up_to("curate", whole, tmp_path / "run")
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.Popen(command("curate", "--dir", folder), env=ENV, stdout=writing, stderr=writing)
    os.close(writing)
    child.wait(120)
    assert comparable(folder / "02-dataset") == comparable(whole / "02-dataset")


@pytest.mark.parametrize("gone", ["rows", "examples", "examples.jsonl", "dropped-1.jsonl", "words.u4", ".first.json"])
def test_curate_killed_while_it_removes_its_scratch_begins_anew(
    gone: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = up_to("curate", whole, tmp_path / "run")

    def killed(scratch: Path) -> None:
        (scratch / gone).unlink()
        raise KeyboardInterrupt

    def curate() -> None:
        list(run_pipeline(Run(folder, load_config(folder / "journeyman.toml")), "curate", SilentReporter()))

    with monkeypatch.context() as patched:
        patched.setattr("journeyman.stages.curate.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            curate()
    curate()
    assert comparable(folder / "02-dataset") == comparable(whole / "02-dataset")


@pytest.mark.parametrize("stage", ["ingest", "curate", "evaluate", "decide", "export"])
def test_a_killed_stage_goes_on_and_ends_the_same(stage: str, whole: Path, tmp_path: Path) -> None:
    """The long version: python tools/kill_every_stage.py --kills 100."""
    folder = up_to(stage, whole, tmp_path / "run")
    wanted = {name: one for name, one in comparable(whole / stage_named(stage).folder).items() if ".html" not in name}
    victim = kill_every_stage.Victim(stage, folder, stage == "ingest", wanted, took_s=0.5)
    with adopting():
        assert kill_every_stage.kill_stage(victim, 1, random.Random(stage)) == []


def test_a_killed_server_leaves_no_engine(whole: Path, tmp_path: Path) -> None:
    folder = up_to("export", whole, tmp_path / "run")
    shutil.copytree(whole / "07-bundle", folder / "07-bundle")
    with adopting():
        assert kill_every_stage.kill_server(folder, 1, random.Random(1)) == []
