"""Who answers: teacher, shadow, canary, fallback, student; and what happens if the student does not."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

import pytest

from faults import wait_until
from journeyman.api import route_changes
from journeyman.api.recording import checked
from journeyman.api.routing import change_route
from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.records import Interaction, Rejected
from journeyman.routing.modes import RouteEvent, back_to_shadow
from journeyman.sources.files import parse_line
from journeyman.sources.reader import Reader
from scripted_upstream import ABORT, recorded, rows_in
from scripted_upstream import http as answer_of
from two_upstreams import BUNDLE, Both, both, chat, streamed, undelivered

FALLBACK = '[route.roles.coder]\nmode = "fallback"\n'
TOO_MANY = [answer_of(b'{"error": {"message": "the queue is full"}}', status="429 Too Many Requests")]


def by_teacher(one: Both, conversation: str) -> bool:
    return one.ask(conversation=conversation)[1]["journeyman-answered-by"] == "teacher"


def records(folder: Path) -> list[Interaction | Rejected]:
    reader = Reader(DataConfig())
    return [one for row in rows_in(folder) for one in reader.records(parse_line(json.dumps(row).encode(), 1), "r")]


def test_without_a_route_the_teacher_answers_and_headers_say_so(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S")) as one:
        status, headers, body = one.ask()
        assert not one.asked_student
    assert (status, headers["journeyman-answered-by"], headers["journeyman-exchange"]) == (200, "teacher", "1")
    assert json.loads(body)["choices"][0]["message"]["content"] == "T"


def test_the_student_answers_with_its_role_as_model_and_without_the_teachers_key(tmp_path: Path) -> None:
    settings = '[route.roles.coder]\nmode = "student"\n'
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), settings) as one:
        _, headers, body = one.ask(temperature=0.5)
        (seen,) = one.asked_student
        assert not one.teacher.seen
    assert b'"S"' in body and headers["journeyman-answered-by"] == "student"
    assert "sk-teacher" not in str(seen.headers)
    assert json.loads(seen.body) == {
        "model": "coder", "messages": [{"role": "user", "content": "Q"}], "temperature": 0.5,
    }  # fmt: skip
    (row,) = rows_in(tmp_path)
    assert row["route"]["arm"] == "student" and row["provider"] == "student"
    (rejected,) = records(tmp_path)
    assert isinstance(rejected, Rejected) and rejected.reason.code == "answered_by_student"


@pytest.mark.parametrize(
    ("script", "reason", "fields"),
    [
        (TOO_MANY, "status_429", {}),
        ([ABORT], "student_closed", {}),
        ([0.9, *chat("late")], "silent", {"stream": True}),
        ([1.5, *chat("late")], "slow", {}),
        ([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", 2.5], "slow", {}),
        (chat(""), "check_answered", {}),
        ([answer_of(b'{"unknown": 1}')], "check_answered", {}),
        ([*streamed(end=False)[:1], b'2b\r\ndata: {"error": {"message": "it failed"}}\n\n\r\n'], "stream_error", {}),
        ([*streamed("a", end=False)[:1], ABORT], "student_closed", {}),
    ],
)  # fmt: skip
def test_the_teacher_answers_where_the_student_fails(
    tmp_path: Path, script: list[bytes], reason: str, fields: dict[str, object]
) -> None:
    settings = "first_s = 0.5\nwhole_s = 1.0\n" + FALLBACK
    with both(tmp_path, lambda seen: chat("T"), lambda seen: script, settings) as one:
        status, headers, body = one.ask(**fields)
    assert status == 200 and b'"T"' in body
    assert headers["journeyman-answered-by"] == "teacher" and headers["journeyman-fallback"] == reason
    (row,) = rows_in(tmp_path)
    assert row["route"]["fallback"] == reason and row["provider"].startswith("127.0.0.1")
    (tried,) = undelivered(tmp_path)
    assert tried["of"] == row["seq"] and tried["why"] == reason
    (learned,) = records(tmp_path)
    assert isinstance(learned, Interaction) and learned.output == "T"
    assert learned.extra["route"]["fallback"] == reason
    assert checked(tmp_path).difference == 0


def test_a_configured_check_sends_a_bad_answer_to_the_teacher(tmp_path: Path) -> None:
    settings = FALLBACK + '[roles.coder]\nchecks = ["python_parses"]\n'
    answers = iter(["```python\nx = (\n```", "```python\nx = 1\n```"])
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat(next(answers)), settings) as one:
        first, second = one.ask()[1], one.ask()[1]
    assert first["journeyman-fallback"] == "check_python_parses"
    assert second["journeyman-answered-by"] == "student" and "journeyman-fallback" not in second


def test_a_stream_is_passed_on_once_it_has_begun_well_and_cut_if_it_breaks_off(tmp_path: Path) -> None:
    scripts = iter([streamed("a", "b"), [*streamed("a", end=False), ABORT]])
    with both(tmp_path, lambda seen: chat("T"), lambda seen: next(scripts), FALLBACK) as one:
        _, headers, body = one.ask(stream=True)
        assert headers["journeyman-answered-by"] == "student" and body.endswith(b"data: [DONE]\n\n")
        with pytest.raises((OSError, http.client.HTTPException)):
            one.ask(stream=True)
        assert not one.teacher.seen
    assert [row["outcome"] for row in rows_in(tmp_path)] == ["complete", "cut"]


def test_a_held_stream_that_breaks_off_is_answered_by_the_teacher(tmp_path: Path) -> None:
    script = [*streamed("a", end=False), ABORT]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: script, "hold = true\n" + FALLBACK) as one:
        _, headers, body = one.ask(stream=True)
    assert headers["journeyman-fallback"] == "student_closed" and b'"T"' in body


def test_if_both_fail_the_row_says_so(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: [ABORT], lambda seen: TOO_MANY, FALLBACK) as one:
        assert one.ask()[0] == 502
    (row,) = rows_in(tmp_path)
    assert row["outcome"] == "failed" and row["route"]["fallback"] == "status_429"


def test_what_the_student_has_no_api_for_goes_to_the_teacher(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: [answer_of(b"{}")], lambda seen: chat("S"), FALLBACK) as one:
        assert one.post("/v1/embeddings", {"model": "coder", "input": "x"})[1]["journeyman-answered-by"] == "teacher"
        assert one.post("/v1/chat/completions", [1])[1]["journeyman-answered-by"] == "teacher"
        assert not one.asked_student


def test_shadow_asks_the_student_after_the_answer_and_keeps_the_pair(tmp_path: Path) -> None:
    settings = '[route.roles.coder]\nmode = "shadow"\n[redact]\npersonal = true\n'
    with both(tmp_path, lambda seen: chat("T"), lambda seen: [0.3, *chat("S")], settings) as one:
        _, headers, body = one.ask("mail anna.berg@kontor-nord.de")
        assert b'"T"' in body and headers["journeyman-answered-by"] == "teacher"
        wait_until(lambda: bool(undelivered(tmp_path)))
    (row,), (pair,) = rows_in(tmp_path), undelivered(tmp_path)
    assert row["route"]["mode"] == "shadow" and row["route"]["arm"] == "teacher"
    assert pair["of"] == row["seq"] and pair["route"]["arm"] == "student" and pair["duration_ms"] >= 250
    assert pair["response"]["choices"][0]["message"]["content"] == "S"
    assert pair["reference"]["choices"][0]["message"]["content"] == "T"
    assert "anna.berg@kontor-nord.de" not in json.dumps(pair)
    assert isinstance(records(tmp_path)[0], Interaction)


def test_shadow_has_a_budget(tmp_path: Path) -> None:
    settings = 'shadow_waiting = 1\nwhole_s = 0.5\n[route.roles.coder]\nmode = "shadow"\n'
    with both(tmp_path, lambda seen: chat("T"), lambda seen: [5.0], settings) as one:
        for _ in range(5):
            assert one.ask()[0] == 200
        wait_until(lambda: len(undelivered(tmp_path)) == 2)
        assert len(one.asked_student) == 2
    assert [(pair["outcome"], pair["why"]) for pair in undelivered(tmp_path)] == [("cut", "slow")] * 2


def test_a_canary_keeps_each_conversation_on_its_arm_also_if_the_share_changes(tmp_path: Path) -> None:
    settings = '[route.roles.coder]\nmode = "canary"\nshare = 0.5\n'
    ids = [f"c{n}" for n in range(40)]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), settings) as one:
        arms = [one.ask(conversation=name)[1]["journeyman-answered-by"] for name in ids]
        assert 8 < arms.count("student") < 32
        change_route(tmp_path, "coder", "canary", 0.02, "")
        wait_until(lambda: all(by_teacher(one, f"{time.monotonic()}") for _ in range(8)))
        assert [one.ask(conversation=name)[1]["journeyman-answered-by"] for name in ids] == arms
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), settings.replace("0.5", "0.02")) as one:
        assert [one.ask(conversation=name)[1]["journeyman-answered-by"] for name in ids] == arms
    shares = {row["route"]["share"] for row in rows_in(tmp_path) if row["conversation"] in ids}
    assert shares == {0.5}


def test_routes_change_by_command_and_by_the_config_file_without_a_restart(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S")) as one:
        assert one.ask()[1]["journeyman-answered-by"] == "teacher"
        change_route(tmp_path, "coder", "student", None, "try it")
        wait_until(lambda: one.ask()[1]["journeyman-answered-by"] == "student")
        config = tmp_path / "journeyman.toml"
        config.write_text(config.read_text() + '[route.roles.coder]\nmode = "teacher"\n')
        wait_until(lambda: one.ask()[1]["journeyman-answered-by"] == "teacher")
    events = json.loads((tmp_path / "routing" / "routes.json").read_text())["events"]
    assert [(event["action"], event["mode"]) for event in events] == [("command", "student"), ("config", "teacher")]


def test_another_bundle_of_the_student_starts_as_shadow(tmp_path: Path) -> None:
    bundle = ["one"]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK, bundle=lambda: bundle[0]) as one:
        assert one.ask()[1]["journeyman-answered-by"] == "student"
        wait_until(lambda: '"one"' in (tmp_path / "routing" / "routes.json").read_text())
        bundle[0] = "two"
        wait_until(lambda: one.ask()[1]["journeyman-answered-by"] == "teacher")
    last = json.loads((tmp_path / "routing" / "routes.json").read_text())["events"][-1]
    assert (last["action"], last["before"], last["mode"], last["release"]) == (
        "new_release",
        "fallback",
        "shadow",
        "two",
    )


def test_a_bundle_that_could_not_be_taken_over_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures, told = iter([OSError("no space")]), list[str]()

    def failing(folder: Path, release: str) -> list[RouteEvent]:
        for error in failures:
            raise error
        return back_to_shadow(folder, release)

    monkeypatch.setattr(route_changes, "back_to_shadow", failing)
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK, told=told.append) as one:
        one.ask()
        wait_until(lambda: BUNDLE in (tmp_path / "routing" / "routes.json").read_text(), timeout_s=20)
    assert [line for line in told if "warning" in line] == ["warning: no space"]


def test_a_student_that_does_not_say_what_it_serves_holds_up_no_change(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), ready=[30.0]) as one:
        wait_until(lambda: one.student.seen)
        change_route(tmp_path, "coder", "student", None, "")
        wait_until(lambda: one.ask()[1]["journeyman-answered-by"] == "student")
        assert one.student.left == 0  # the first question what it serves is still open


@pytest.mark.parametrize("student", ["ftp://x", "http://127.0.0.1:1/v1", "http://127.0.0.1:1"])
def test_a_student_that_is_none_is_refused(tmp_path: Path, student: str) -> None:
    with (
        pytest.raises(UsageError, match=r"route\.student"),
        recorded(tmp_path, "http://127.0.0.1:1", f'[route]\nstudent = "{student}"', assess=False),
    ):
        pass


def test_a_damaged_routes_file_is_told_and_changes_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK, told=told.append) as one:
        assert one.ask()[1]["journeyman-answered-by"] == "student"
        routes = tmp_path / "routing" / "routes.json"
        wait_until(lambda: BUNDLE in routes.read_text())  # else it might be written over
        routes.write_text("{")
        wait_until(lambda: any("stay as they were" in line for line in told))
        assert one.ask()[1]["journeyman-answered-by"] == "student"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"exchange": 1, "success": True}, 200),
        ({"conversation": "c", "score": 0.5, "final": True}, 200),
        ({"exchange": 0, "success": True}, 400),
        ({"success": True}, 400),
        ({"exchange": 1}, 400),
        ({"exchange": 1, "score": 2}, 400),
        ({"exchange": 1, "success": "yes"}, 400),
        ({"exchange": 1, "success": True, "other": 1}, 400),
        ([1], 400),
    ],
)
def test_feedback_is_recorded_and_not_passed_on(tmp_path: Path, body: object, status: int) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S")) as one:
        assert one.post("/v1/feedback", body)[0] == status
        assert not one.teacher.seen
    (row,) = rows_in(tmp_path)
    assert row["request"] == body and row["outcome"] == ("complete" if status == 200 else "refused")
    assert checked(tmp_path).difference == 0


def test_feedback_that_is_too_large_to_be_read_at_once_is_refused(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S")) as one:
        assert one.post("/v1/feedback", {"exchange": 1, "success": True, "comment": "x" * (256 << 10)})[0] == 413
        assert not one.teacher.seen
    assert checked(tmp_path).difference == 0
