"""Conversations that go on stay with the teacher when a canary begins, and when the student is promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faults import wait_until
from journeyman.api.routing import change_route
from journeyman.routing.assigning import Assignments
from journeyman.routing.running import Running
from scripted_upstream import rows_in
from two_upstreams import Both, both, chat

CANARY = '[route.roles.coder]\nmode = "canary"\nshare = '
Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(one: Both, conversation: str, *turns: dict[str, Any]) -> str:
    headers = {"Journeyman-Conversation": conversation}
    body = {"model": "coder", "messages": list(turns)}
    return one.post("/v1/chat/completions", body, headers)[1]["journeyman-answered-by"]


def routes(folder: Path, conversation: str) -> list[dict[str, Any]]:
    return [row["route"] for row in rows_in(folder) if row["conversation"] == conversation]


def test_a_conversation_that_began_before_the_canary_stays_with_the_teacher_and_is_not_counted(tmp_path: Path) -> None:
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), CANARY + "0.999999") as one:
        assert ask(one, "old", Q, A, Q) == "teacher"
        assert ask(one, "new", Q) == "student"
        assert ask(one, "new", Q, A, Q) == "student"
        assert ask(one, "old", Q, A, Q, A, Q) == "teacher"
    for route in routes(tmp_path, "old"):
        assert route["begun_before"] is True and route["mode"] == "canary" and not {"arm", "share"} & route.keys()
    assert [route["arm"] for route in routes(tmp_path, "new")] == ["student"] * 2


@pytest.mark.parametrize("mode", ["fallback", "student"])
def test_the_teachers_conversations_stay_with_it_when_the_student_is_promoted(tmp_path: Path, mode: Any) -> None:
    def promoted(one: Both) -> None:
        assert ask(one, "old", Q, A, Q, A, Q) == "teacher"
        assert ask(one, "fresh", Q) == "student"
        assert ask(one, "fresh", Q, A, Q) == "student"

    answers = {"teacher": lambda seen: chat("T"), "student": lambda seen: chat("S")}
    with both(tmp_path, **answers, settings=CANARY + "1e-9") as one:
        assert ask(one, "old", Q) == "teacher"
        change_route(tmp_path, "coder", mode, None, "")
        wait_until(lambda: ask(one, f"new {len(one.teacher.seen)}", Q) == "student")
        promoted(one)
    with both(tmp_path, **answers, settings=CANARY + "1e-9") as one:  # also if the recorder starts again
        promoted(one)
    first, *later = routes(tmp_path, "old")
    assert first["arm"] == "teacher" and first["share"] == 1e-9
    assert all(route["begun_before"] and "arm" not in route and route["mode"] == mode for route in later)


def test_what_was_compared_in_shadow_stays_with_the_teacher(tmp_path: Path) -> None:
    settings = '[route.roles.coder]\nmode = "shadow"\n'
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), settings) as one:
        assert ask(one, "old", Q) == "teacher"
        change_route(tmp_path, "coder", "fallback", None, "")
        wait_until(lambda: ask(one, f"new {len(one.teacher.seen)}", Q) == "student")
        assert ask(one, "old", Q, A, Q) == "teacher"
        assert ask(one, "old", Q) == "student"  # it begins anew


def test_a_conversation_is_the_teachers_until_it_has_been_idle(tmp_path: Path) -> None:
    clock = Clock()
    arms = Assignments(tmp_path)
    running = Running(arms, 60.0, clock)
    running.answered("a", "teacher")
    running.answered("b", "teacher")
    clock.now = 50.0
    running.answered("a", "teacher")
    clock.now = 100.0
    assert running.is_teachers("a") and not running.is_teachers("b")
    running.answered("a", "student")
    assert not running.is_teachers("a")
    arms.close()


def test_examples_in_a_request_do_not_keep_it_out_of_a_canary_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    arms = Assignments(tmp_path)
    running = Running(arms, 60.0, clock)
    assert running.began_before("coder", 1, "a")
    running.answered("a", "teacher")
    clock.now = 50.0
    assert running.began_before("coder", 1, "b")
    running.answered("b", "teacher")
    clock.now = 70.0
    assert running.began_before("coder", 1, "b") and not running.began_before("coder", 1, "a")
    assert not running.began_before("coder", 1, "c") and running.began_before("coder", 2, "c")
    arms.arm(2, "c", 0.5)
    assert not running.began_before("coder", 2, "c")
    arms.close()


def test_after_a_restart_the_latest_draw_counts(tmp_path: Path) -> None:
    arms = Assignments(tmp_path)
    arms.arm(1, "a", 0.0)
    arms.arm(1, "b", 0.0)
    arms.arm(2, "b", 1.0)
    arms.close()
    clock = Clock()
    arms = Assignments(tmp_path)
    running = Running(arms, 60.0, clock)
    assert running.is_teachers("a") and not running.is_teachers("b")
    clock.now = 61.0
    assert not running.is_teachers("a")
    arms.close()
