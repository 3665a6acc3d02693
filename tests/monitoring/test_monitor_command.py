"""The command: tables, JSON, errors and alerts; and prompts that are not those of the training."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from faults import journeyman
from journeyman.api import monitoring
from journeyman.api.monitoring import Monitor, recorder_of
from journeyman.api.routing import assessor_of
from journeyman.cli import monitor as command
from journeyman.cli import monitor_tables
from journeyman.cli.app import app
from journeyman.cli.say import PlainConsole
from journeyman.config import Config
from journeyman.errors import UsageError
from journeyman.locking import LOCK, locked
from journeyman.manifests import BundleManifest, RolePrompt
from journeyman.monitoring import looking
from journeyman.monitoring.looking import Inputs, Looker
from journeyman.monitoring.prompt_looks import Trained
from journeyman.monitoring.recorded import MOST_ROLES
from journeyman.monitoring.report import Recorder, RoleReport
from journeyman.serving.app import identity_of
from made_prompts import texts
from made_traffic import (
    NOW,
    STUDENT,
    SYSTEM,
    by_student,
    compared,
    conversation,
    event,
    exchange,
    row,
    write_exchanges,
    write_routes,
    write_rows,
    write_training,
)
from scripted_upstream import Script, Seen, http, recorded, rows_in, scripted
from two_upstreams import both, chat

PRICES = '[monitor.prices."gpt-x*"]\nprompt = 2.5\nanswer = 10.0\n'


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.time, "time", lambda: NOW)


def _run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["monitor", "--dir", str(folder), *options], catch_exceptions=False)


def _filled(folder: Path, toml: str = STUDENT + PRICES) -> None:
    """Three roles: one that a student answers, one in shadow, one of the teacher alone."""
    rng = np.random.default_rng(1)
    (folder / "journeyman.toml").write_text(toml + '[roles."a tester"]\nchecks = ["regex"]\n')
    write_training(folder, texts(rng, 300))
    write_rows(folder, [row(n, text) for n, text in enumerate(texts(rng, 100, foreign=0.5))])
    lines = [by_student(n, prompt_tokens=800_000, answer_tokens=100_000) for n in range(10)]
    lines += [by_student(n, fallback="silent", failed=True, model="gpt-x") for n in range(10, 40)]
    lines += [exchange(n, role="a tester", mode="shadow") for n in range(40, 50)]
    lines += [compared(n, role="a tester", failed=n < 43) for n in range(40, 50)]
    write_exchanges(folder, [*lines, exchange(60, role="planner", failed=None, status=429)])
    write_exchanges(folder, [conversation(f"c{n}", float(n >= 10)) for n in range(40)], "conversations.jsonl")
    write_routes(folder, "fallback", [event(1, "promote", "canary", "fallback", why="not worse")])


def test_the_tables_fit_into_a_hundred_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: None) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _filled(tmp_path)
    told = _run(tmp_path).output
    tables = [line for line in told.splitlines() if line[:1] in "│┃┏└┡"]
    assert tables and all(len(line) <= 100 for line in tables)
    cells = {tuple(cell.strip() for cell in line.strip("│").split("│")) for line in tables if line.startswith("│")}
    assert ("coder", "fallback", "40", "25%", "75.0%", "$30.00") in cells
    assert ("a tester", "teacher", "10", "0%", "–", "–") in cells
    assert ("", "student", "10", "25% (14–40%)", "0", "8.0M / 1.0M") in cells
    assert ("", "shadow", "10", "70% (40–89%)", "0", "500 / 100") in cells
    assert ("planner", "teacher", "1", "not known", "1", "50 / 10") in cells
    assert ("coder", "vocabulary", "not known", "yes") in cells and (
        "planner",
        "not known",
        "not known",
        "not known",
    ) in cells
    for note in (
        "coder: promote, canary → fallback: not worse", "coder: fallbacks: silent 30", "recorder: none is at work",
        "planner: errors of the teacher: status_429 1", "success counts: student 40 conversations",
        "coder: train again: the teacher answered 75.0% of 40 requests in the student's place",
    ):  # fmt: skip
        assert note in told


def test_json_has_codes_and_no_zero_for_what_is_not_known(tmp_path: Path, now: None) -> None:
    _filled(tmp_path, STUDENT)
    found = json.loads(_run(tmp_path, "--json", "--role", "coder", "--since", "90m").output)
    (one,) = found["roles"]
    assert one["saved"] is None and one["saved_unknown"] == {"code": "no_price", "details": {"model": "gpt-x"}}
    assert one["prompts"] is None and one["prompts_unknown"]["code"] == "no_trained_prompts"
    assert {reason["code"] for reason in one["train_again"]} == {"drift_found", "fallbacks_above"}
    assert one["fallbacks"]["part"] == 30 and one["drift"]["against"] == "training"
    assert found["recorder"]["state"] == "stopped"


def test_an_empty_folder_and_one_that_is_missing(tmp_path: Path) -> None:
    made = journeyman("monitor", "--dir", tmp_path)
    assert made.returncode == 0 and "nothing was recorded in the window" in made.stdout
    missing = journeyman("monitor", "--dir", tmp_path / "no", "--json")
    assert missing.returncode == 2 and json.loads(missing.stdout)["error"]["code"] == "usage"


@pytest.mark.parametrize("span", ["", "24", "0h", "-1h", "1w", "1e3h", "999999d", "87601h"])
def test_a_span_that_is_none_is_refused(span: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        command.hours_of(span)


@pytest.mark.parametrize("hours", ["1e9", "inf", "nan", "0.0"])
def test_hours_that_no_clock_has_are_refused(tmp_path: Path, hours: str) -> None:
    with pytest.raises(UsageError, match="hours"):
        Monitor(tmp_path, float(hours))
    (tmp_path / "journeyman.toml").write_text(f"[monitor]\nhours = {hours}\n")
    with pytest.raises(UsageError, match=r"monitor\.hours"):
        Monitor(tmp_path)


def test_spans() -> None:
    assert [command.hours_of(span) for span in ("90m", "24h", "7d", "1.5h")] == [1.5, 24, 168, 1.5]


def test_hostile_names_do_nothing_to_the_terminal(tmp_path: Path, now: None) -> None:
    (tmp_path / "journeyman.toml").write_text(STUDENT)
    hostile = "ro\x1b[2J\nle\u202e"
    write_exchanges(tmp_path, [by_student(1, role=hostile, fallback=hostile, failed=True), exchange(2, role=hostile)])
    told = _run(tmp_path).output
    assert "\x1b" not in told and "\u202e" not in told and "\\x1b" in told


# --- alerts ---


def test_alerts_from_cron_are_sent_once(tmp_path: Path, now: None) -> None:
    keep = "import sys; open('alerts.txt', 'a').write(sys.stdin.read())"
    _filled(tmp_path, STUDENT + f"[monitor]\ncommand = [{json.dumps(sys.executable)}, '-c', {json.dumps(keep)}]\n")
    for _ in range(3):
        assert _run(tmp_path, "--alert").exit_code == 0
    sent = [json.loads(line) for line in (tmp_path / "alerts.txt").read_text().splitlines()]
    assert sorted(one["kind"] for one in sent) == ["drift", "fallback_share", "not_recording", "train_again"]
    assert all(one["status"] == "raised" and one["run"] == tmp_path.name for one in sent)
    write_routes(
        tmp_path, "teacher", [event(1, "promote", "canary", "fallback"), event(2, "roll_back", "fallback", "teacher")]
    )
    assert _run(tmp_path, "--alert").exit_code == 0
    assert json.loads((tmp_path / "alerts.txt").read_text().splitlines()[-1])["kind"] == "rolled_back"
    assert (tmp_path / "monitoring").stat().st_mode & 0o777 == 0o700


def test_an_alert_that_nobody_takes_is_a_failure(tmp_path: Path, now: None) -> None:
    _filled(tmp_path, STUDENT + "[monitor]\ncommand = ['/no/such/program']\n")
    made = _run(tmp_path, "--alert")
    assert made.exit_code == 1 and "/no/such/program" in made.output


def test_without_a_receiver_alerts_are_printed(tmp_path: Path, now: None) -> None:
    _filled(tmp_path)
    made = _run(tmp_path, "--alert")
    assert made.exit_code == 0 and "alerts are only printed" in made.output and "raised: coder: " in made.output


def test_watching_goes_on_after_a_look_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []

    def sleep(seconds: float) -> None:
        looks.append(1)
        (tmp_path / "recorded").rmdir() if len(looks) == 1 else None
        if len(looks) == 2:
            raise KeyboardInterrupt

    def fail(rows: Path, config: Config) -> Recorder:
        if rows.is_dir():
            raise OSError(5, "Input/output error", str(rows))
        return Recorder(state="stopped")

    (tmp_path / "recorded").mkdir()
    monkeypatch.setattr(command.time, "sleep", sleep)
    monkeypatch.setattr(monitoring, "recorder_of", fail)
    command.run(tmp_path, None, None, as_json=False, watching=True, alert=False)
    told = capsys.readouterr()
    assert told.err.count("this look failed") == 1 and "none is at work" in told.out and "stopped watching" in told.err


def test_two_do_not_send_alerts_of_one_folder(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    with monitor.alerts(print), pytest.raises(UsageError, match="another journeyman"), monitor.alerts(print):
        pass


@pytest.mark.parametrize(
    ("key", "said"),
    [("webhook = 'ftp://host/secret'", "monitor.webhook"), ("webhook = 'http://u:secret@host'", "monitor.webhook"),
     ("command = ['']", "monitor.command"), ("alerts = ['other']", "monitor.alerts"),
     ("every_s = inf", "monitor.every_s")],
)  # fmt: skip
def test_settings_that_are_wrong_are_refused_without_secrets(tmp_path: Path, key: str, said: str) -> None:
    (tmp_path / "journeyman.toml").write_text(f"[monitor]\n{key}\n")
    with pytest.raises(UsageError, match=said) as refused:
        Monitor(tmp_path)
    assert "secret" not in str(refused.value)


def test_a_key_that_is_not_set_is_said(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[monitor]\nwebhook = 'http://h'\nwebhook_key_env = 'NO_SUCH_KEY'\n")
    with pytest.raises(UsageError, match="NO_SUCH_KEY is not set"), Monitor(tmp_path).alerts(print):
        pass


# --- the recorder ---


def test_a_recorder_says_how_it_is(tmp_path: Path) -> None:
    rows = tmp_path / "recorded"
    assert recorder_of(rows, Config()).state == "stopped"
    rows.mkdir()
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    said = {"status": "ok", "rows_written": 3, "lost": 2, "trouble": None, **here}

    def config(port: int) -> Config:
        return Config.model_validate({"record": {"port": port}})

    with scripted(lambda seen: [http(json.dumps(said).encode(), status="503 x")]) as upstream, locked(rows):
        found = recorder_of(rows, config(upstream.port))
        assert (found.state, found.lost, upstream.seen[0].path) == ("recording", 2, "/journeyman/health")
        said["trouble"] = "the disk is full"
        found = recorder_of(rows, config(upstream.port))
        assert (found.state, found.trouble) == ("trouble", "the disk is full")
        for other in ({"pid": os.getpid() + 1}, {"host": "another"}):
            said.update(here | other)
            assert recorder_of(rows, config(upstream.port)).state == "silent", "another folder's recorder"
        said.clear()
        assert recorder_of(rows, config(upstream.port)).state == "silent", "another program has the port"
        assert recorder_of(rows, config(0)).state == "unknown"
    with locked(rows):
        assert recorder_of(rows, config(upstream.port)).state == "silent"


def test_a_real_recorder_is_that_of_its_own_folder_only(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name / "recorded").mkdir(parents=True)
    with scripted(lambda seen: []) as upstream, recorded(tmp_path / "mine", upstream.url) as recorder:
        config = Config.model_validate({"record": {"port": urlsplit(recorder.address).port}})
        assert recorder_of(tmp_path / "mine" / "recorded", config).state == "recording"
        (tmp_path / "other" / "recorded" / LOCK).write_text("another 1")
        with (tmp_path / "other" / "recorded" / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert recorder_of(tmp_path / "other" / "recorded", config).state == "silent"


def test_what_a_real_recorder_has_written(tmp_path: Path) -> None:
    """Through the port, with a student: rows that the recorder makes, not ones that a test made up."""
    settings = '[route.roles.coder]\nmode = "student"\n'
    with both(tmp_path, lambda seen: chat("teacher"), lambda seen: chat("student"), settings) as here:
        for number in range(3):
            here.ask(f"Question {number}", conversation=f"c{number}")
    assert len(rows_in(tmp_path)) == 3
    found = Monitor(tmp_path).look()
    (one,) = found.roles
    assert (found.source, one.role, one.requests, one.by_student) == ("rows", "coder", 3, 3)
    assert one.student.whole is not None and one.student.whole.answers == 3
    assert one.drift is not None and one.drift.recorded == 3


def test_what_a_real_assessor_has_judged(tmp_path: Path) -> None:
    def student(seen: Seen) -> Script:
        return [http(b"{}", status="503 Busy")] if b"Question 1" in seen.body else chat("yes")

    settings = '[route.roles.coder]\nmode = "fallback"\n[roles.coder]\nchecks = ["contains"]\n'
    with both(tmp_path, lambda seen: chat("no"), student, settings + "[monitor]\nfailed_rows = 1\n") as here:
        for number in range(4):
            here.ask(f"Question {number}", conversation=f"c{number}", check={"contains": ["yes"]})
        for number in range(4):
            here.post("/v1/feedback", {"conversation": f"c{number}", "success": number != 1, "final": True})
    assessor = assessor_of(tmp_path, tmp_path / "recorded", lambda text: None)
    while assessor.step():
        pass
    assessor.close()
    found = Monitor(tmp_path).look()
    (one,) = found.roles
    assert (found.source, one.mode, one.requests, one.by_student) == ("exchanges", "fallback", 4, 3)
    assert one.fallback_reasons == {"status_503": 1} and one.failed_rows == 1
    assert one.student.success is not None and (one.student.success.part, one.student.success.of) == (3, 4)
    assert [reason.code for reason in one.train_again] == ["student_failed"]


def test_roles_that_the_config_file_names_are_always_looked_at(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[[record.roles]]\nrole = 'coder'\nmodel = 'x'\n")
    write_rows(tmp_path, [*(row(n, role=f"invented {n}") for n in range(50)), row(60)])
    found = Monitor(tmp_path).look(NOW)
    drifts = {one.role: one.drift for one in found.roles}
    assert drifts["coder"] is not None and sum(drift is not None for drift in drifts.values()) == MOST_ROLES + 1
    assert {one.code: one.details for one in found.notes}["roles_not_compared"]["roles"] == 30


# --- prompts ---


def _bundle(**changes: object) -> BundleManifest:
    made = {
        "roles": ["coder"], "override": None, "base_sha256": "", "adapter_sha256": {}, "adapter_files": {},
        "base_file": "b", "base_path": "b", "system_prompts": {"coder": SYSTEM}, "settings": {},
        "redact": {"secrets": True, "personal": True, "system_apart": True}, **changes,
    }  # fmt: skip
    return BundleManifest.model_validate(made)


def _with_bundle(folder: Path, bundle: BundleManifest | None) -> tuple[RoleReport, set[str]]:
    inputs = Inputs(
        folder / "recorded", folder / "routing", Trained(bundle=bundle), Recorder(state="stopped")
    )  # fmt: skip
    found = Looker(Config(), 24).look(inputs, NOW)
    return found.roles[0], {one.code for one in found.notes}


def test_prompts_that_are_not_those_of_the_bundle(tmp_path: Path) -> None:
    systems = [SYSTEM] * 30 + ["You are somebody else."] * 6 + [""] * 4
    write_rows(tmp_path, [row(n, f"Question {n}", system=system) for n, system in enumerate(systems)])
    one, _ = _with_bundle(tmp_path, _bundle())
    assert one.prompts is not None and one.prompts.against == "bundle"
    assert (one.prompts.share.part, one.prompts.share.of) == (6, 40) and one.prompts.differences == {"system_prompt": 6}
    frame = RolePrompt(kind="templated", text="", begins="You are a", ends="", rows=9, distinct=9)
    one, _ = _with_bundle(tmp_path, _bundle(system_prompts={}, prompts={"coder": frame}))
    assert one.prompts is not None and one.prompts.differences == {"frame": 10}
    one, _ = _with_bundle(tmp_path, _bundle(roles=["tester"]))
    assert one.prompts is None and one.prompts_unknown is not None and one.prompts_unknown.code == "role_not_trained"


def test_prompts_that_were_redacted_are_those_of_the_bundle(tmp_path: Path) -> None:
    """Rows and training have placeholders for the same values."""
    prompt = "Write to <SYSTEM_EMAIL_1> or <SYSTEM_EMAIL_2>."
    write_rows(
        tmp_path, [row(1, system=prompt), row(2, system="Write to anna@mueller-pumpen.de or bert@mueller-pumpen.de.")]
    )
    one, _ = _with_bundle(tmp_path, _bundle(system_prompts={"coder": prompt}))
    assert one.prompts is not None and one.prompts.share.part == 0


def test_a_student_that_serves_another_bundle_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(1)])
    bundle = _bundle()
    for release, said in ((identity_of(bundle), False), ("0" * 16, True), ("", False)):
        write_routes(tmp_path)
        path = tmp_path / "routing" / "routes.json"
        routes = json.loads(path.read_text())
        routes["roles"]["coder"]["release"] = release
        path.write_text(json.dumps(routes))
        assert ("serves_another" in _with_bundle(tmp_path, bundle)[1]) == said


def test_drift_is_looked_for_now_and_then_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(tmp_path)
    monitor = Monitor(tmp_path)
    first = monitor.look(NOW)
    write_rows(tmp_path, [row(1)])
    again, later = monitor.look(NOW + 60), monitor.look(NOW + 3601)
    assert first.roles[0].drift == again.roles[0].drift != later.roles[0].drift
    assert monitoring.inputs_of(tmp_path, monitor.config).notes == ()


def test_notes_about_a_sample_stay_as_long_as_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(tmp_path)
    write_rows(tmp_path, [row(200)], 2)
    monkeypatch.setattr(looking, "MOST_ROW_BYTES", 1)
    monitor = Monitor(tmp_path)
    looks = [monitor.look(NOW + seconds) for seconds in (0, 60, 3601)]
    assert ["sampled_back_to" in {note.code for note in one.notes} for one in looks] == [True] * 3
    assert looks[0].drift_at == looks[1].drift_at != looks[2].drift_at


def test_a_damaged_dataset_or_bundle_is_left_out_and_said(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(1)])
    for name in ("02-dataset", "07-bundle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{")
    found = Monitor(tmp_path).look(NOW)
    assert [one.code for one in found.notes].count("file_not_usable") == 2 and found.roles[0].requests == 1


def test_the_notes_of_a_canary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _filled(tmp_path)
    figures = {"difference": 0.01, "difference_low": -0.2, "difference_high": 0.22}
    state = {"verdict": "go_on", "why": "too few", "figures": figures, "pairs": {"both": 3, "neither": 0}}
    (tmp_path / "routing" / "canaries.json").write_text(json.dumps({"roles": {"coder": state}}))
    monitor_tables.print_report(PlainConsole(width=100), Monitor(tmp_path).look(NOW))
    told = capsys.readouterr().out
    assert "coder: verdict so far: go on: too few" in told and "(-20.0% to +22.0%, at any time)" in told
    assert "coder: compared with the teacher: both 3" in told


def test_a_narrow_terminal_shows_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _filled(tmp_path)
    monitor_tables.print_report(PlainConsole(width=40), Monitor(tmp_path).look(NOW))
    told = capsys.readouterr().out
    assert "saved: $30.00" in told and "success: 25% (14–40%)" in told
