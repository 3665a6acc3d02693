"""Which runs the page finds, and the state of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from journeyman.errors import UsageError
from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.errors import NotThere
from journeyman.ui.finding import Runs
from journeyman.ui.resources import runs
from page_runs import write_progress, write_run


def page_of(folder: Path) -> TestClient:
    guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
    return TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})


def only_run(folder: Path) -> dict[str, object]:
    found: dict[str, object] = page_of(folder).get("/api/runs").json()["runs"][0]
    return found


def states(folder: Path) -> dict[str, str]:
    return {one["stage"]: one["state"] for one in only_run(folder)["stages"]}  # type: ignore[attr-defined]


def test_runs_below_the_folder_are_found_and_stages_are_no_runs(tmp_path: Path) -> None:
    for name in ("b", "a", "deep/er/c", "new\nline"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "journeyman.toml").write_text("")
    (tmp_path / "without-config" / "02-dataset").mkdir(parents=True)
    (tmp_path / "a" / "superseded" / "x").mkdir(parents=True)
    (tmp_path / "a" / "superseded" / "x" / "journeyman.toml").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "journeyman.toml").write_text("")
    names = [one.name for one in Runs(tmp_path).listed()]
    assert names == ["a", "b", "deep/er/c", "new\nline", "without-config"]
    shown = [one["name"] for one in page_of(tmp_path).get("/api/runs").json()["runs"]]
    assert shown == names  # a line break is shown as text


def test_the_folder_itself_may_be_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "mine", until="ingest")
    (found,) = Runs(tmp_path / "mine").listed()
    assert (found.name, found.root) == ("mine", tmp_path / "mine")


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = write_run(tmp_path / "outside" / "secret", text="SECRET")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    assert Runs(inside).listed() == []
    run = write_run(inside / "run", until="plan")
    (run / "04-adapter").symlink_to(outside / "04-adapter")
    (run / "05-evaluation").symlink_to(outside / "05-evaluation")
    (run / "journeyman.log").unlink()
    (run / "journeyman.log").symlink_to(outside / "journeyman.log")
    (run / ".progress.json").symlink_to(outside / ".progress.json")
    page = page_of(inside)
    found = page.get("/api/runs").json()["runs"][0]
    for part in ("log", "curves", "rows", "rows/summary", "rows/0", "verdict"):
        assert "SECRET" not in page.get(f"/api/runs/{found['id']}/{part}").text
    assert page.get(f"/api/runs/{found['id']}/log").json() == {"lines": []}
    assert {one["state"] for one in found["stages"] if one["stage"] in ("train", "evaluate")} == {"damaged"}


@pytest.mark.parametrize("name", ["sealed/test.jsonl", "noted.jsonl"])
def test_a_file_that_became_a_link_is_refused(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "runs" / "run")
    file = run / "02-dataset" / name
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    page = page_of(tmp_path / "runs")
    parts = ("rows", "rows/0") if "test" in name else ("findings", "findings/0")
    for part in parts:
        answer = page.get(f"/api/runs/{only_run(tmp_path / 'runs')['id']}/{part}")
        assert answer.status_code == 422 and answer.json()["error"]["code"] == "changed_artifact"


def test_an_unknown_run_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        Runs(tmp_path).of("0" * 16)


def test_states_follow_from_the_manifests(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert set(states(tmp_path).values()) == {"made", "missing"}
    other = write_run(tmp_path.with_name(f"{tmp_path.name}-other") / "run", rows=4)
    (run / "02-dataset").rename(run / "old")
    (other / "02-dataset").rename(run / "02-dataset")
    assert states(tmp_path) == {
        "ingest": "made", "curate": "made", "plan": "stale", "train": "stale", "evaluate": "stale", "decide": "stale",
        "export": "missing",
    }  # fmt: skip
    manifest = run / "05-evaluation" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 6', '"rows": 7'))
    found = only_run(tmp_path)
    assert states(tmp_path)["evaluate"] == "damaged"
    assert "hash of its content differs" in str(found["problems"])
    assert found["verdict"] == "deploy"


def test_a_stage_without_a_manifest_is_unfinished_or_as_the_last_run_left_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until="plan")
    (run / "04-adapter").mkdir()
    assert states(tmp_path)["train"] == "unfinished"
    for state, shown in (("stopped", "stopped"), ("failed", "failed"), ("running", "dead")):
        write_progress(run, state=state)
        assert states(tmp_path)["train"] == shown
    assert only_run(tmp_path)["now"]["left_s"] is None  # type: ignore[index]


def test_the_lock_of_a_finished_run_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look would keep a run from starting, for an instant."""
    run = write_run(tmp_path / "run")
    (run / ".lock").write_text("host 1")
    write_progress(run, state="ended")
    os.utime(run / ".lock", ns=(1, 1))
    monkeypatch.setattr("journeyman.ui.states.look", lambda root: pytest.fail("the lock was tried"))
    assert only_run(tmp_path)["now"]["state"] == "ended"  # type: ignore[index]


HOLDER = "import sys,time; from pathlib import Path; from journeyman.locking import locked\n"
HOLDER += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"


def test_a_running_stage_has_its_progress_and_is_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until="plan")
    (run / "04-adapter").mkdir()
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        write_progress(run, pid=child.pid)
        found = only_run(tmp_path)
        now = found["now"]
        assert states(tmp_path)["train"] == "running"
        assert (now["state"], now["done"], now["total"], now["pid"]) == ("running", 300, 1000, child.pid)  # type: ignore[index]
        assert 100 < now["left_s"] < 180  # type: ignore[index]
        page = page_of(tmp_path)
        stop = f"/api/runs/{found['id']}/stop"
        assert page.post(stop, json={"pid": child.pid + 1}).status_code == 409  # another one than the user saw
        assert child.poll() is None
        assert page.post(stop, json={"pid": child.pid}).json() == {"pid": child.pid}
        assert child.wait(10) == -signal.SIGTERM
        assert page.post(stop, json={"pid": child.pid}).status_code == 422  # nothing runs any more
    finally:
        child.kill()


@pytest.mark.parametrize(
    "body", ["", "x", "[]", "{}", '{"pid": "1"}', '{"pid": true}', '{"pid": 1, "more": 1}', "[" * 9999]
)
def test_an_invalid_body_stops_nothing(tmp_path: Path, body: str) -> None:
    write_run(tmp_path / "run", until="ingest")
    stop = f"/api/runs/{only_run(tmp_path)['id']}/stop"
    answer = page_of(tmp_path).post(stop, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "bad_request"


def test_a_broken_config_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "good", until="ingest")
    write_run(tmp_path / "bad", until="ingest")
    (tmp_path / "bad" / "journeyman.toml").write_text("[base]\nmodle = 1\n")
    bad, good = page_of(tmp_path).get("/api/runs").json()["runs"]
    assert "modle" in bad["problems"][0] and not good["problems"]


def test_nothing_that_was_only_found_is_opened_or_started(tmp_path: Path) -> None:
    """A run folder from elsewhere may name any program as its llama-server."""
    run = write_run(tmp_path / "run")
    program, mark = tmp_path / "program", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    (run / "journeyman.toml").write_text(f'[evaluate]\nllama_server = "{program}"\n')
    page = page_of(tmp_path)
    found = page.get("/api/runs").json()["runs"][0]
    for part in ("", "/plan", "/curves", "/log", "/findings", "/rows", "/verdict"):
        assert page.get(f"/api/runs/{found['id']}{part}").status_code == 200
    assert not mark.exists()


def test_a_comparison_says_what_differs_and_is_forgotten_when_the_config_changes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until="ingest")
    page, found = page_of(tmp_path), only_run(tmp_path)
    compared = page.post(f"/api/runs/{found['id']}/compare-stages", json={}).json()
    assert compared["stages"][0]["state"] == "stale" and "ingest.setting" in compared["stages"][0]["changed"]
    assert page.get(f"/api/runs/{found['id']}").json()["stages"][0]["state"] == "stale"
    (run / "journeyman.toml").write_text("")
    assert page.get(f"/api/runs/{found['id']}").json()["stages"][0]["state"] == "made"


def test_a_folder_whose_lock_cannot_be_read_hides_no_other_run(tmp_path: Path) -> None:
    write_run(tmp_path / "good", until="ingest")
    odd = write_run(tmp_path / "odd", until="ingest")
    write_progress(odd)
    (odd / ".lock").mkdir()
    found = {one["name"]: one for one in page_of(tmp_path).get("/api/runs").json()["runs"]}
    assert found["good"]["problems"] == [] and ".lock" in found["odd"]["problems"][0]
    assert [one["state"] for one in found["odd"]["stages"]][:2] == ["made", "missing"]
    assert page_of(tmp_path).get(f"/api/runs/{found['odd']['id']}").json()["problems"] == found["odd"]["problems"]


@pytest.mark.parametrize("error", [PermissionError(13, "no"), UsageError("no")])
def test_a_folder_that_cannot_be_read_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("good", "odd"):
        write_run(tmp_path / name, until="ingest")
    read = runs.stages_of

    def stages_of(root: Path, *others: Any) -> Any:
        if root.name == "odd":
            raise error
        return read(root, *others)

    monkeypatch.setattr(runs, "stages_of", stages_of)
    good, odd = page_of(tmp_path).get("/api/runs").json()["runs"]
    assert good["problems"] == [] and good["stages"]
    assert odd["problems"] == [str(error)] and odd["stages"] == [] and odd.keys() == good.keys()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until="ingest")
    write_progress(run)
    os.mkfifo(run / ".lock")
    assert only_run(tmp_path)["now"]["state"] == "dead"  # type: ignore[index]
