"""Alerts are raised once, resolved once, and delivered until they are taken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from journeyman.config import Config, MonitorConfig
from journeyman.errors import DiskFull, InputError
from journeyman.monitoring import alerts as module
from journeyman.monitoring.alerts import Alerts
from journeyman.monitoring.answerers import share_of
from journeyman.monitoring.report import Answers, Compared, Drift, Recorder, Report, RoleReport, RouteChange
from journeyman.monitoring.sending import to_command, to_webhook
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import DriftFound, FallbacksAbove, StudentFailed, SuccessBelow, TooFewPrompts
from scripted_upstream import Script, Seen, http, scripted

KEY = "webhook-key-0123456789"


def _change(number: int, action: str) -> RouteChange:
    return RouteChange(
        number=number, at="2026-03-02T10:00:00+00:00", role="coder", action=action, before="canary", mode="teacher",
        why="w",
    )  # fmt: skip


def _drift(found: bool | None) -> Drift:
    if found is None:
        why = TooFewPrompts(1, 2, 3, 4).record()
        return Drift(recorded=1, trained=5, held_out=3, against="training", unknown=why)
    test = Compared(test="length", p_value=0.001 if found else 0.5, effect=0.3, least=0.15, found=found)
    return Drift(recorded=100, trained=200, held_out=50, against="training", tests=[test])


def _report(
    state: str = "recording", fallbacks: int | None = None, drift: bool | None = None, again: bool = False,
    changes: Iterable[RouteChange] = (),
) -> Report:  # fmt: skip
    role = RoleReport(
        role="coder", requests=1000, teacher=Answers(), student=Answers(), shadow=Answers(),
        fallbacks=None if fallbacks is None else share_of(fallbacks, 1000), fallback_reasons={"silent": 1},
        drift=_drift(drift), train_again=[StudentFailed(300, 200).record()] if again else [],
    )  # fmt: skip
    recorder = Recorder(state=state, address="http://127.0.0.1:8012", trouble="the disk is full")
    return Report(at="a", since="b", source="rows", recorder=recorder, roles=[role], changes=list(changes))


@dataclass
class Told:
    """A folder with alerts, and what came of them."""

    folder: Path
    config: MonitorConfig = field(default_factory=MonitorConfig)
    failing: str = ""
    sent: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 1_000_000.0

    def send(self, message: str) -> str:
        if not self.failing:
            self.sent.append(json.loads(message))
        return self.failing

    def opened(self) -> Alerts:
        return Alerts(self.folder, "run", self.config, {"webhook": self.send}, self.said.append)

    def look(self, report: Report, alerts: Alerts | None = None) -> list[tuple[str, str]]:
        """What was sent after a look, a minute after the one before; by a new process unless `alerts` are given."""
        before, self.now = len(self.sent), self.now + 60
        alerts = alerts or self.opened()
        alerts.take(report, self.now)
        alerts.deliver(self.now)
        return [(one["kind"], one["status"]) for one in self.sent[before:]]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.mark.parametrize(
    ("there", "gone", "kind", "code"),
    [
        (_report("trouble"), _report(), "not_recording", "recorder_trouble"),
        (_report("silent"), _report(), "not_recording", "recorder_silent"),
        (_report("stopped"), _report(), "not_recording", "recorder_stopped"),
        (_report(fallbacks=200), _report(fallbacks=50), "fallback_share", "fallbacks_above"),
        (_report(drift=True), _report(drift=False), "drift", "drift_found"),
        (_report(again=True), _report(), "train_again", "train_again"),
    ],
)
def test_each_is_raised_once_and_resolved_once(told: Told, there: Report, gone: Report, kind: str, code: str) -> None:
    assert told.look(_report()) == []
    assert told.look(there) == [(kind, "raised")]
    assert [told.look(there) for _ in range(3)] == [[], [], []]
    assert told.sent[-1]["code"] == code and told.sent[-1]["text"] and told.sent[-1]["run"] == "run"
    assert [told.look(gone) for _ in range(4)] == [[], [], [(kind, "resolved")], []]
    assert told.look(there) == [(kind, "raised")]
    assert len({one["id"] for one in told.sent}) == 3, "another occurrence is another message"


def test_what_comes_and_goes_is_one_occurrence(told: Told) -> None:
    reports = [_report("trouble"), _report(), _report(), _report("trouble"), _report(), _report("stopped")]
    assert [told.look(report) for report in reports] == [[("not_recording", "raised")], [], [], [], [], []]


def test_what_is_not_known_neither_raises_nor_resolves(told: Told) -> None:
    unknown = _report("unknown", fallbacks=None, drift=None)
    assert told.look(unknown) == []
    assert told.look(_report("trouble", fallbacks=200, drift=True)) == [
        ("not_recording", "raised"), ("fallback_share", "raised"), ("drift", "raised"),
    ]  # fmt: skip
    assert [told.look(unknown) for _ in range(5)] == [[]] * 5
    # 10.5 % is above the limit of 10 %, and its interval is not: an alert stays, and none is raised.
    assert [told.look(_report("unknown", fallbacks=105)) for _ in range(5)] == [[]] * 5


def _again(*reasons: Reason, **changes: Any) -> Report:
    made = _report(**{"drift": False, "fallbacks": 10, **changes})
    return made.model_copy(
        update={"roles": [made.roles[0].model_copy(update={"train_again": [one.record() for one in reasons]})]}
    )


FAILED, DRIFTED = StudentFailed(300, 200), DriftFound("length", "length", 0.001, 0.3, 100)


@pytest.mark.parametrize(
    ("reason", "unknown"),
    [
        (DRIFTED, {"drift": None}),
        (FallbacksAbove(0.2, 0.15, 0.25, 1000, 0.1, "silent"), {"fallbacks": None}),
        (SuccessBelow(0.5, 0.4, 0.6, 100, "conversations", 0.9), {}),
    ],
)
def test_training_again_is_not_over_while_its_reason_is_not_known(
    told: Told, reason: Reason, unknown: dict[str, Any]
) -> None:
    told.config = Config.model_validate({"monitor": {"alerts": ["train_again"]}}).monitor
    assert told.look(_again(reason)) == [("train_again", "raised")]
    assert [told.look(_again(**unknown)) for _ in range(4)] == [[]] * 4
    assert told.look(_again(reason)) == []


def test_training_again_is_over_without_what_its_reason_does_not_need(told: Told) -> None:
    told.config = Config.model_validate({"monitor": {"alerts": ["train_again"]}}).monitor
    told.look(_again(FAILED))
    assert [told.look(_again(drift=None, fallbacks=None)) for _ in range(3)] == [[], [], [("train_again", "resolved")]]


def test_a_new_reason_to_train_again_is_told(told: Told) -> None:
    told.config = Config.model_validate({"monitor": {"alerts": ["train_again"]}}).monitor
    told.look(_again(FAILED))
    assert told.look(_again(FAILED, DRIFTED)) == [("train_again", "raised")]
    assert "drift_found" in told.sent[-1]["text"] and told.sent[0]["id"] != told.sent[1]["id"]
    assert [told.look(_again(DRIFTED)), told.look(_again(FAILED))] == [[], []], "both are told"


@pytest.mark.parametrize(("kind", "there"), [("drift", _report(drift=True)), ("train_again", _again(DRIFTED))])
def test_looks_that_repeat_the_same_drift_count_once(told: Told, kind: str, there: Report) -> None:
    told.config = Config.model_validate({"monitor": {"alerts": [kind]}}).monitor
    assert told.look(there) == [(kind, "raised")]
    gone = [_again().model_copy(update={"drift_at": at}) for at in "1112223"]
    assert [told.look(one) for one in gone] == [[]] * 6 + [[(kind, "resolved")]]


def test_fallbacks_near_the_limit_raise_nothing(told: Told) -> None:
    assert told.look(_report(fallbacks=105)) == [] and told.look(_report(fallbacks=130)) == [
        ("fallback_share", "raised")
    ]


def test_changes_of_routes_are_told_once(told: Told) -> None:
    first = [_change(3, "promote")]
    assert told.look(_report(changes=first)) == [], "what was before the first look is no news"
    both = [*first, _change(5, "roll_back"), _change(6, "promote")]
    assert told.look(_report(changes=both)) == [("rolled_back", "raised"), ("promoted", "raised")]
    assert told.look(_report(changes=both)) == [] and told.look(_report()) == []
    assert "coder: rolled back from canary to teacher: w" in told.sent[0]["text"]
    assert told.look(_report(changes=[_change(1, "roll_back")])) == [("rolled_back", "raised")], "a new routes.json"


def test_only_what_is_asked_for(told: Told) -> None:
    told.config = Config.model_validate({"monitor": {"alerts": ["drift"]}}).monitor
    told.look(_report())
    found = told.look(_report("trouble", fallbacks=300, drift=True, again=True, changes=[_change(9, "promote")]))
    assert found == [("drift", "raised")]


def test_a_failure_is_said_and_tried_again_later(told: Told) -> None:
    told.failing = "503 busy"
    assert told.look(_report("trouble")) == []
    assert any("503 busy" in text for text in told.said)
    tries = []
    for _ in range(200):
        before = len(told.said)
        told.look(_report("trouble"))
        tries.append(len(told.said) > before)
    assert 4 <= sum(tries) <= 12 and tries[0], "waits are doubled, up to an hour"
    told.failing, told.now = "", told.now + 3600
    assert told.look(_report("trouble")) == [("not_recording", "raised")]
    assert told.look(_report("trouble")) == []


def test_it_is_given_up_after_days(told: Told) -> None:
    told.failing = "gone"
    told.look(_report("trouble"))
    told.now += 4 * 86_400
    told.look(_report("trouble"))
    assert any("given up" in text for text in told.said)
    told.failing, told.now = "", told.now + 7200
    assert told.look(_report("trouble")) == []


def test_a_full_disk_does_not_keep_an_alert_back(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, model: object) -> None:
        raise DiskFull(f"{path}: the disk is full", "")

    monkeypatch.setattr(module, "write_model", full)
    alerts = told.opened()
    assert told.look(_report("trouble"), alerts) == [("not_recording", "raised")]
    assert told.look(_report("trouble"), alerts) == [] and any("may be repeated" in text for text in told.said)


def test_a_damaged_state_is_refused(told: Told) -> None:
    (told.folder / "alerts.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"alerts\.json"):
        told.opened()


def test_messages_about_one_thing_arrive_in_their_order(told: Told) -> None:
    alerts = told.opened()
    told.look(_report(), alerts)
    told.failing = "busy"
    told.look(_report(changes=[_change(1, "promote")]), alerts)
    told.failing = ""
    alerts.take(_report(changes=[_change(1, "promote"), _change(2, "roll_back")], fallbacks=300), told.now + 1)
    assert alerts.deliver(told.now + 1) == 2 and [one["kind"] for one in told.sent] == ["fallback_share"]
    assert alerts.deliver(told.now + 60) == 0
    assert [one["kind"] for one in told.sent[1:]] == ["promoted", "rolled_back"]


def test_a_target_that_fails_is_asked_once_a_look(told: Told) -> None:
    told.failing = "slow"
    told.look(_report("trouble", fallbacks=300, drift=True, again=True))
    assert sum("not delivered" in text for text in told.said) == 1


def test_a_message_that_always_fails_blocks_no_other(told: Told) -> None:
    def send(message: str) -> str:
        told.sent.append(json.loads(message))
        return "400" if told.sent[-1]["kind"] == "not_recording" else ""

    alerts = Alerts(told.folder, "run", told.config, {"webhook": send}, told.said.append)
    for hour, fallbacks in enumerate([0, 0, 300]):
        alerts.take(_report("trouble", fallbacks=fallbacks), hour * 7200.0)
        alerts.deliver(hour * 7200.0)
    assert [one["kind"] for one in told.sent] == ["not_recording"] * 2 + ["fallback_share", "not_recording"]


def test_two_runs_of_the_same_name_send_different_ids(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        (tmp_path / name / "run").mkdir(parents=True)
        told = Told(tmp_path / name / "run")
        told.look(_report("trouble"))
        ids.append(told.sent[0]["id"])
    assert ids[0] != ids[1]


def test_changes_of_the_same_second_have_different_ids(told: Told) -> None:
    told.look(_report())
    told.look(_report(changes=[_change(1, "promote"), _change(2, "promote")]))
    assert len({one["id"] for one in told.sent}) == 2


def test_messages_to_a_target_that_was_removed_are_dropped_and_said(told: Told) -> None:
    told.failing = "gone"
    told.look(_report("trouble"))
    alerts = Alerts(told.folder, "run", told.config, {}, told.said.append)
    assert alerts.deliver(told.now) == 0 and "monitor.webhook is not set any more" in told.said[-1]
    assert told.opened().deliver(told.now + 9999) == 0


def test_routes_that_were_begun_anew_are_told_even_with_the_same_number(told: Told) -> None:
    told.look(_report(changes=[_change(3, "promote")]))
    anew = _change(3, "roll_back").model_copy(update={"at": "2026-03-02T11:00:00+00:00"})
    assert told.look(_report(changes=[anew])) == [("rolled_back", "raised")]
    assert told.look(_report(changes=[anew])) == []
    another = _change(2, "promote").model_copy(update={"at": "2026-03-02T12:00:00+00:00"})
    later = _change(4, "roll_back").model_copy(update={"at": "2026-03-02T13:00:00+00:00"})
    assert told.look(_report(changes=[another, later])) == [("promoted", "raised"), ("rolled_back", "raised")]


def test_messages_that_are_too_many_are_dropped_and_said(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PENDING", 2)
    told.failing = "gone"
    told.look(_report("trouble", fallbacks=300, drift=True))
    assert any("the 1 oldest alerts were given up" in text for text in told.said)


# --- delivering ---


def _answers(*statuses: str) -> Callable[[Seen], list[bytes]]:
    left = list(statuses)
    return lambda seen: [http(b"said: " + KEY.encode(), "text/plain", left.pop(0) if len(left) > 1 else left[0])]


def test_a_webhook_gets_json_with_its_key() -> None:
    with scripted(_answers("202 Accepted")) as server:
        assert to_webhook(f"{server.url}/hook?token=t", KEY, 5.0, '{"id": "x"}') == ""
        seen = server.seen[0]
    assert seen.line.startswith("POST /hook?token=t ") and json.loads(seen.body) == {"id": "x"}
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers["authorization"] == f"Bearer {KEY}" and headers["content-type"] == "application/json"


@pytest.mark.parametrize(("statuses", "asked"), [(("503 Busy", "200 OK"), 2), (("200 OK",), 1)])
def test_a_temporary_failure_is_tried_again(statuses: tuple[str, ...], asked: int) -> None:
    with scripted(_answers(*statuses)) as server:
        assert to_webhook(f"{server.url}/hook", None, 5.0, "{}") == ""
        assert len(server.seen) == asked


@pytest.mark.parametrize("status", ["400 Bad Request", "302 Found", "404 Not Found"])
def test_what_a_webhook_refuses_is_said_without_secrets(status: str) -> None:
    with scripted(_answers(status)) as server:
        why = to_webhook(f"{server.url}/a/secret-path", KEY, 5.0, "{}")
        assert why == f"status {status[:3]}"
        assert len(server.seen) == 1
    assert to_webhook(f"{server.url}/a/secret-path", KEY, 5.0, "{}") == "ConnectError"


def test_a_server_that_repeats_the_path_reveals_nothing() -> None:
    with scripted(lambda seen: [http(f"Cannot POST {seen.path}".encode(), status="404 Not Found")]) as server:
        assert to_webhook(f"{server.url}/services/T00/SECRET", None, 5.0, "{}") == "status 404"


def test_a_webhook_that_drips_headers_is_given_up() -> None:
    def drip(seen: Seen) -> Script:
        yield b"HTTP/1.1 200 OK\r\n"
        for number in range(100):
            yield 0.2
            yield f"X-{number}: x\r\n".encode()

    with scripted(drip) as server:
        assert "monitor.timeout_s (1 s)" in to_webhook(f"{server.url}/hook", None, 1.0, "{}")
        assert len(server.seen) == 1


def test_a_webhook_can_be_asked_beside_an_event_loop() -> None:
    async def inside(url: str) -> str:
        return to_webhook(url, None, 5.0, "{}")

    with scripted(_answers("200 OK")) as server:
        assert asyncio.run(inside(f"{server.url}/hook")) == ""


@pytest.mark.parametrize("left", ["sleep 60 & echo $! > child; exit 0", "setsid sleep 60 & echo $! > child; exit 0"])
def test_what_a_command_leaves_running_is_not_waited_for(tmp_path: Path, left: str) -> None:
    assert to_command(["/bin/sh", "-c", left], tmp_path, 30.0, "{}") == ""
    child = int((tmp_path / "child").read_text())
    assert _alive(child), "the command ended first"
    os.kill(child, signal.SIGKILL)


def test_a_command_gets_json_on_its_input(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; open('got', 'w').write(sys.stdin.read() + sys.argv[1])", "$HOME; x"]
    assert to_command(program, tmp_path, 30.0, '{"id": "x"}') == ""
    assert (tmp_path / "got").read_text() == '{"id": "x"}\n$HOME; x', "there is no shell"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no\\x1b[31m')"], "exit code 1: no\\x1b[31m"),
        (["/no/such/program"], "/no/such/program"),
        ([sys.executable, "-c", "pass"], ""),
    ],
)
def test_a_command_that_fails_says_why(tmp_path: Path, program: list[str], said: str) -> None:
    why = to_command(program, tmp_path, 30.0, "{}" + " " * 1_000_000)
    assert why.startswith(said) and bool(why) == bool(said)


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > child; wait"
    assert "monitor.timeout_s (0.5 s)" in to_command(["/bin/sh", "-c", script], tmp_path, 0.5, "{}")
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        if not _alive(child):
            return
        time.sleep(0.05)
    raise AssertionError("the child is alive")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
