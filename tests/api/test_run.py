"""journeyman as a library: creating, opening, running, results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import journeyman
from conftest import log_row, write_run
from journeyman.errors import InputError, StaleArtifact, UsageError
from journeyman.events import Advanced, Event, RunEnded, StageFinished, StageStarted
from journeyman.supervision.heartbeat import read_progress

MakeRun = Callable[..., Path]


def write_logs(folder: Path, count: int = 40) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [log_row(number, "coder" if number % 2 else "tester") for number in range(count)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_importing_journeyman_loads_next_to_nothing() -> None:
    code = (
        "import sys, journeyman; from journeyman.cli.app import app; "
        "print([name for name in ('torch', 'pydantic', 'journeyman.api') if name in sys.modules]); "
        "journeyman.Run; print('torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split("\n")[:2] == ["[]", "False"]


def test_every_public_name_is_there_and_documented() -> None:
    for name in journeyman.__all__:
        value = getattr(journeyman, name)
        assert name == "__version__" or value.__doc__, name
    assert set(journeyman.__all__) <= set(dir(journeyman))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = journeyman.nothing  # type: ignore[attr-defined]


def test_create_writes_a_config_that_names_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_logs(tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    settings = {"train.epochs": 2, "roles": {"a.b": {"checks": ["exact"]}}, "base.model": Path("x.gguf")}
    run = journeyman.create("my-run", "logs/*.jsonl", settings=settings)
    found = tomllib.loads(Path("my-run/journeyman.toml").read_text())
    assert found["data"]["sources"] == ["../logs/*.jsonl"]
    assert found["train"] == {"epochs": 2} and found["roles"] == {"a.b": {"checks": ["exact"]}}
    assert found["base"]["model"] == str(tmp_path / "x.gguf")
    assert run.config.train.epochs == 2
    before = Path("my-run/journeyman.toml").read_bytes()
    with pytest.raises(UsageError, match=r"journeyman.open\('my-run'\)"):
        journeyman.create("my-run", "logs/*.jsonl")
    assert Path("my-run/journeyman.toml").read_bytes() == before


def test_create_from_logs_proposes_a_config(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs")
    run = journeyman.create(tmp_path / "run", from_logs=logs, settings={"train.epochs": 5, "serve.port": 0})
    text = (tmp_path / "run" / "journeyman.toml").read_text()
    assert text.startswith("# Proposed from a sample") and set(run.config.roles) == {"coder", "tester"}
    assert run.config.train.epochs == 5 and run.config.serve.port == 0
    assert text.count("[train]") == 1, "a setting goes into the section that is there"


def test_create_refuses_what_cannot_work_and_writes_nothing(tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs")
    for sources, settings, says in (
        (tmp_path / "none", {}, "none"),
        (logs, {"train.epoch": 2}, "Did you mean train.epochs"),
        (logs, {"train.epochs": object()}, "no value of the type object"),
        (logs, {"epochs": 2}, "not a key of a section"),
        (None, {}, "needs the logs"),
    ):
        with pytest.raises(UsageError, match=says):
            journeyman.create(tmp_path / "run", sources, settings=settings)
    assert not (tmp_path / "run").exists()


def test_open_refuses_a_folder_without_a_config_and_bad_settings(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        journeyman.open(tmp_path / "nothing")
    folder = make_run()
    with pytest.raises(UsageError, match="contains a dot"):
        journeyman.open(folder, settings={"roles": {"a.b": {"checks": ["exact"]}}})
    run = journeyman.open(folder, settings={"train": {"epochs": 7}, "data.default_role": 'x"\n'})
    assert run.config.train.epochs == 7 and run.config.data.default_role == 'x"\n'


def test_stages_run_and_tell(make_run: MakeRun) -> None:
    folder, heard = make_run(), list[Event]()
    run = journeyman.open(folder)
    assert set(run.status.values()) == {"missing"} and run.status.stages["plan"].created == ""
    with pytest.raises(InputError, match="has not been run"):
        run.result("curate")
    dataset = run.curate(on_event=heard.append)
    assert isinstance(dataset, journeyman.Dataset) and dataset.action == "made" and dataset.seconds > 0
    assert [one.stage for one in heard if isinstance(one, StageStarted)] == ["ingest", "curate"]
    assert heard[-1] == RunEnded("ended")
    assert sum(len(rows) for rows in (dataset.train, dataset.val, dataset.test)) == dataset.manifest.kept
    assert f"train {len(dataset.train)}" in repr(dataset)
    assert run.status["curate"] == "fresh" and run.status["plan"] == "missing"
    heard.clear()
    assert run.curate(on_event=heard.append).action == "fresh"
    assert [one.action for one in heard if isinstance(one, StageFinished)] == ["fresh", "fresh"]
    assert [row.answer for row in run.result("curate").train] == [row.answer for row in dataset.train]
    progress = read_progress(folder)
    assert progress and progress.state == "ended" and progress.command == run.command("curate")


def test_status_says_what_has_changed(make_run: MakeRun) -> None:
    folder = make_run()
    journeyman.open(folder).curate()
    run = journeyman.open(folder, settings={"curate.max_length": 300})
    assert run.status["ingest"] == "fresh" and run.status["curate"] == "stale"
    assert run.status.stages["curate"].changed == ("curate.max_length",)
    assert repr(run.status).splitlines()[1].endswith("; changed: curate.max_length")
    with pytest.raises(StaleArtifact, match=r"curate\.max_length"):
        run.curate()
    with (folder / "logs.jsonl").open("a") as file:
        file.write(json.dumps(log_row(77)) + "\n")
    changed = journeyman.open(folder).status
    assert changed["ingest"] == changed["curate"] == "stale"
    assert changed.stages["curate"].changed == ("01-interactions",)
    (folder / "logs.jsonl").unlink()
    assert journeyman.open(folder).status["ingest"] == "stale"


def test_a_listener_that_raises_ends_the_work(make_run: MakeRun) -> None:
    def listener(event: Event) -> None:
        if isinstance(event, StageStarted):
            raise LookupError(event.stage)

    run = journeyman.open(make_run())
    with pytest.raises(LookupError):
        run.ingest(on_event=listener)
    assert run.ingest().action in ("made", "resumed")


@pytest.mark.parametrize("how", ["ctrl-c", "stop", "sigterm"])
def test_interrupted_work_resumes(make_run: MakeRun, how: str) -> None:
    run = journeyman.open(make_run(), settings={"train.epochs": 3, "train.patience": 99})
    handler = signal.getsignal(signal.SIGINT)

    def listener(event: Event) -> None:
        if isinstance(event, Advanced) and run.status["train"] == "unfinished" and event.done > 2:
            if how == "stop":
                run.stop()
            else:
                os.kill(os.getpid(), signal.SIGINT if how == "ctrl-c" else signal.SIGTERM)

    run.plan()
    with pytest.raises(journeyman.Interrupted, match="same call resumes"):
        run.train(on_event=listener)
    assert signal.getsignal(signal.SIGINT) is handler
    assert run.status["train"] == "unfinished"
    adapter = run.train()
    assert adapter.action == "resumed" and adapter.manifest.adapters["all"].steps == adapter.facts()["steps"]


def test_a_run_is_taken_to_its_decision_and_bundle(tmp_path: Path, tiny_gguf: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_gguf, [log_row(number) for number in range(40)])
    run = journeyman.open(folder)
    decision = run.run("decide")
    assert isinstance(decision, journeyman.Decision) and decision.verdict != "deploy"
    coder = decision.roles["coder"]
    assert coder.verdict == decision.manifest.roles["coder"].verdict
    assert decision.reasons["coder"] == coder.failed and all(one.code and one.sentence() for one in coder.reasons)
    assert decision.report.read_bytes() and "coder" in repr(coder)
    evaluation = run.result("evaluate")
    assert {row.arm for row in evaluation.predictions} == {row.arm for row in evaluation.summary}
    assert len(evaluation.scores) == len(evaluation.predictions) and evaluation.regressions is not None
    with pytest.raises(journeyman.JourneymanError, match="verdict"):
        run.export()
    bundle = run.export(override="a test")
    assert bundle.manifest.override == "a test" and run.status["export"] == "fresh"
    assert set(run.status.values()) == {"fresh"}
    for shown in (decision, coder, evaluation, evaluation.scores, bundle, run, run.status, run.result("plan")):
        page = shown._repr_html_()
        assert page.count("<table>") == page.count("</table>") == 1
    assert decision.verdict in decision._repr_html_() and 'font-weight:600">fresh<' in run._repr_html_()
