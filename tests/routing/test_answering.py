"""What an answer of the student, its failure, and a client that leaves become; and what does not reach the student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faults import wait_until
from journeyman.api.recording import checked
from journeyman.gateway import journal
from scripted_upstream import ABORT, Script, rows_in
from scripted_upstream import http as answer_of
from two_upstreams import Both, both, chat, streamed, undelivered

FALLBACK = '[route.roles.coder]\nmode = "fallback"\n'
CANARY = '[route.roles.coder]\nmode = "canary"\nshare = '
QUESTION = {"model": "coder", "messages": [{"role": "user", "content": "Q"}]}
KEY = "hunter-key-4711xyz"


def leave(one: Both, patience_s: float = 2.0, **fields: Any) -> None:
    """Asks as a client that gives up."""
    with pytest.raises(OSError):  # a time-out
        one.post("/v1/chat/completions", {**QUESTION, **fields}, patience_s=patience_s)


def row_of(folder: Path) -> dict[str, Any]:
    assert checked(folder).difference == 0
    (row,) = rows_in(folder)
    return row


def test_an_answer_that_is_not_streamed_may_begin_late(tmp_path: Path) -> None:
    """`journeyman serve` sends the headers with the complete answer."""
    settings = "first_s = 0.2\nwhole_s = 15.0\n" + FALLBACK
    with both(tmp_path, lambda seen: chat("T"), lambda seen: [0.8, *chat("S")], settings) as one:
        assert one.ask()[1]["journeyman-answered-by"] == "student"
        assert one.ask(stream=True)[1]["journeyman-fallback"] == "silent"


def test_whole_s_counts_from_the_request(tmp_path: Path) -> None:
    late = [0.9, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{", 1.4, ABORT]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: late, "whole_s = 1.5\n" + FALLBACK) as one:
        assert one.ask()[1]["journeyman-fallback"] == "slow"


def test_a_client_that_leaves_while_the_teacher_answers_for_the_student_changes_nothing_of_the_failure(
    tmp_path: Path,
) -> None:
    with both(tmp_path, lambda seen: [5.0, *chat("T")], lambda seen: [ABORT], FALLBACK) as one:
        leave(one)
        wait_until(lambda: one.teacher.left == 1)
    row = row_of(tmp_path)
    assert row["outcome"] == "cancelled" and row["route"]["fallback"] == "student_closed"
    assert row["route"]["waited_ms"] >= 500


@pytest.mark.parametrize(
    ("settings", "arm"), [(FALLBACK, "student"), (CANARY + "0.999999", "student"), (CANARY + "1e-9", "teacher")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_byte_leaves_how_long_it_waited_in_both_arms(
    tmp_path: Path, settings: str, arm: str, stream: bool
) -> None:
    with both(tmp_path, lambda seen: [5.0], lambda seen: [5.0], settings) as one:
        leave(one, stream=stream)
        wait_until(lambda: one.teacher.left + one.student.left == 1)
    row = row_of(tmp_path)
    assert row["outcome"] == "cancelled" and row["route"]["arm"] == arm
    assert row["route"]["waited_ms"] >= 500 and "fallback" not in row["route"]


def test_a_client_that_leaves_later_has_not_waited(tmp_path: Path) -> None:
    script = [*streamed("a", end=False), 5.0]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: script, FALLBACK) as one:
        leave(one, stream=True)
        wait_until(lambda: one.student.left == 1)
    row = row_of(tmp_path)
    assert row["outcome"] == "cancelled" and "waited_ms" not in row["route"]


def test_a_row_without_a_route_has_none_if_the_client_leaves(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: [5.0], lambda seen: chat("S")) as one:
        leave(one)
        wait_until(lambda: one.teacher.left == 1)
    assert "route" not in row_of(tmp_path)


def test_the_query_does_not_reach_the_student(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK) as one:
        one.post(f"/v1/chat/completions?api_key={KEY}", QUESTION)
        assert [seen.path for seen in one.asked_student] == ["/v1/chat/completions"]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_key_that_the_student_repeats_is_in_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(journal, "_MEMORY", ("none",))
    refusal: Script = [answer_of(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), status="500 Error")]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: refusal, FALLBACK) as one:
        assert in_memory or not one.recorder.ledger.in_memory
        asked = {**QUESTION, "messages": [{"role": "user", "content": f"my key is {KEY}"}]}
        one.post("/v1/chat/completions", asked, {"Authorization": f"Bearer {KEY}"})
    (tried,) = undelivered(tmp_path)
    assert "<KEY>" in tried["route"]["why"] and KEY not in json.dumps([tried, *rows_in(tmp_path)])


def test_sessions_that_are_cookies_too_stay_conversations_of_their_own(tmp_path: Path) -> None:
    sessions = ["sess-12345678", "sess-87654321"]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK) as one:
        for session in (*sessions, sessions[0]):
            headers = {"Cookie": f"sid={session}", "X-Session-ID": session}
            one.post("/v1/chat/completions", QUESTION, headers)
    first, second, again = [row["conversation"] for row in rows_in(tmp_path)]
    assert first == again != second
    assert not any(session in json.dumps(rows_in(tmp_path)) for session in sessions)


@pytest.mark.parametrize(
    ("fields", "by"),
    [
        ({"store": False}, "student"),
        ({}, "teacher"),
        ({"store": True}, "teacher"),
        ({"store": None}, "teacher"),
        ({"store": False, "previous_response_id": "resp_1"}, "teacher"),
        ({"store": False, "conversation": "conv_1"}, "teacher"),
        ({"store": False, "background": True}, "teacher"),
        ({"store": False, "prompt": {"id": "pmpt_1"}}, "teacher"),
        ({"store": False, "input": [{"type": "item_reference", "id": "msg_1"}]}, "teacher"),
        ({"store": False, "previous_response_id": None, "background": False}, "student"),
    ],
)
def test_what_the_teachers_responses_api_stores_is_its_own(tmp_path: Path, fields: dict[str, Any], by: str) -> None:
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "S"}]}]
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": output}
    answer = [answer_of(json.dumps(response).encode())]
    with both(tmp_path, lambda seen: answer, lambda seen: answer, FALLBACK) as one:
        asked = {"model": "coder", "input": "hi", **fields}
        assert one.post("/v1/responses", asked)[1]["journeyman-answered-by"] == by
        assert len(one.asked_student) == (by == "student")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "PUT", "DELETE"])
def test_other_methods_go_to_the_teacher(tmp_path: Path, method: str) -> None:
    empty = [answer_of(b"")]
    with both(tmp_path, lambda seen: empty, lambda seen: empty, FALLBACK) as one:
        _, headers, _ = one.post("/v1/chat/completions", QUESTION, method=method)
        assert headers["journeyman-answered-by"] == "teacher" and not one.asked_student
    assert row_of(tmp_path)["method"] == method


def test_a_request_that_the_student_does_not_support_is_answered_by_the_teacher(tmp_path: Path) -> None:
    refusal = [answer_of(b'{"error": {"message": "n > 1 is not supported"}}', status="400 Bad Request")]
    with both(tmp_path, lambda seen: chat("T"), lambda seen: refusal, FALLBACK) as one:
        status, headers, _ = one.ask(n=2)
        assert (status, headers["journeyman-fallback"]) == (200, "status_400")
        assert json.loads(one.teacher.seen[0].body)["n"] == 2


def test_a_request_that_no_check_can_read_is_answered_by_the_teacher(tmp_path: Path) -> None:
    nested = json.dumps(QUESTION).encode()[:-1] + b', "x": ' + b"[" * 950 + b"]" * 950 + b"}"
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK) as one:
        status, headers, _ = one.post("/v1/chat/completions", nested)
    assert status == 200 and headers["journeyman-answered-by"] in ("teacher", "student")
    assert checked(tmp_path).difference == 0
