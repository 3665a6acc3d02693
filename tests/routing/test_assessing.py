"""From recorded rows to decisions, in files alone: also when it is killed, and when rows are compressed under it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from journeyman.config import Config, parse_config
from journeyman.gateway.row_files import compress
from journeyman.routing import modes
from journeyman.routing.assessing import CONVERSATIONS, EXCHANGES, FEEDBACKS, Assessor
from journeyman.routing.assigning import drawn
from journeyman.routing.exchanges import exchange_of
from journeyman.routing.judging import Judge
from journeyman.routing.modes import back_to_shadow, changed, record_of
from journeyman.routing.seen import Seen

DAY = "2026-11-30"


def config(**route: Any) -> Config:
    settings = {"conversation_s": 60, "least": 20, "margin": 0.2, **route}
    return parse_config({"route": settings, "roles": {"coder": {"checks": ["exact"]}}}, "test")


def row(
    seq: int, conversation: str, route: dict[str, Any], answer: str = "yes", *, role: str = "coder", **fields: Any
) -> dict[str, Any]:
    """A recorded row, whose answer is right if it is yes."""
    choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
    return {
        "recorded": 1, "seq": seq, "assigned": seq, "outcome": "complete", "time": f"{DAY}T10:00:00.000+00:00",
        "role": role, "conversation": conversation, "path": "/v1/chat/completions", "status": 200,
        "route": route, "duration_ms": 100, "check": {"expected": "yes"},
        "request": {"messages": [{"role": "user", "content": "?"}], "check": {"expected": "yes"}},
        "response": {"object": "chat.completion", "choices": [choice]}, **fields,
    }  # fmt: skip


def write(folder: Path, rows: Iterable[dict[str, Any]], file: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"rows-{file:06d}-{DAY}.jsonl"
    with path.open("ab") as out:
        for one in rows:
            out.write(json.dumps(one).encode() + b"\n")
    return path


@pytest.fixture(autouse=True)
def the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are numbered from 1, so that the arms are the same each time."""
    monkeypatch.setattr(modes, "_new_trial", lambda before: before.trial + 1 if before else 1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fixed(Judge):
    """Judges without children: an answer is right if it is yes."""

    def judged(self, row: Any, reference: Any = None) -> Any:
        from journeyman.routing.judging import Judged

        text = row["response"]["choices"][0]["message"]["content"]
        return Judged("pass") if text == "yes" else Judged("fail", "exact", "not yes") if text else Judged("unscored")


def assessor(folder: Path, settings: Config, clock: Callable[[], float], told: list[str] | None = None) -> Assessor:
    (folder / "routing" / "undelivered").mkdir(parents=True, exist_ok=True)
    judge = Fixed(settings, folder)
    say = (lambda text: None) if told is None else told.append
    return Assessor(folder / "recorded", folder / "routing", settings, judge, say, clock)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "routing" / name).read_bytes().splitlines()]


def traffic(
    trial: int, count: int, student_fails: float, teacher_fails: float, share: float = 0.5
) -> list[dict[str, Any]]:
    chance, made = random.Random(1), []
    for number in range(count):
        arm = drawn(trial, f"c{number}", share).arm
        fails = chance.random() < (student_fails if arm == "student" else teacher_fails)
        route = {"mode": "canary", "trial": trial, "arm": arm, "share": share}
        made.append(row(number + 1, f"c{number}", route, "no" if fails else "yes"))
    return made


def canary(folder: Path, share: float = 0.5) -> int:
    (folder / "routing").mkdir(exist_ok=True)
    made = changed(folder / "routing", "coder", "canary", share=share)
    assert made is not None
    return made.trial


def run_all(one: Assessor, clock: Clock) -> None:
    while one.step():
        pass
    clock.now += 120
    one.step()


@pytest.mark.parametrize(
    ("student", "mode", "action"),
    [(0.02, "fallback", "promote"), (0.6, "teacher", "roll_back"), (0.2, "canary", "command")],
)
def test_a_canary_decides_by_itself(tmp_path: Path, student: float, mode: str, action: str) -> None:
    trial, clock, told = canary(tmp_path), Clock(), list[str]()
    write(tmp_path / "recorded", traffic(trial, 400, student, 0.02))
    one = assessor(tmp_path, config(), clock, told)
    run_all(one, clock)
    record = record_of(tmp_path / "routing")
    assert record.roles["coder"].mode == mode and record.events[-1].action == action
    assert bool(told) == (mode != "canary")
    assert bool(record.events[-1].why) == (mode != "canary")
    summary = json.loads((tmp_path / "routing" / "canaries.json").read_text())["roles"]["coder"]
    assert summary["trial"] == record.roles["coder"].trial if mode != "teacher" else summary["verdict"] == "roll_back"
    one.close()


@pytest.mark.parametrize(("student", "mode"), [("yes", "canary"), ("", "teacher")])
def test_errors_alone_roll_back_and_never_promote(tmp_path: Path, student: str, mode: str) -> None:
    settings = parse_config({"route": {"conversation_s": 60, "least": 20, "margin": 0.2}}, "test")
    trial, clock = canary(tmp_path), Clock()
    rows = traffic(trial, 400, 0.0, 0.0)
    for one in rows:
        if one["route"]["arm"] == "student" and not student:
            one["route"]["fallback"] = "silent"
    write(tmp_path / "recorded", rows)
    (tmp_path / "routing" / "undelivered").mkdir(parents=True)
    found = Assessor(tmp_path / "recorded", tmp_path / "routing", settings, Judge(settings, tmp_path), print, clock)
    run_all(found, clock)
    assert record_of(tmp_path / "routing").roles["coder"].mode == mode
    if mode == "canary":
        summary = json.loads((tmp_path / "routing" / "canaries.json").read_text())["roles"]["coder"]
        assert summary["reason"]["code"] == "only_errors" and summary["figures"]["student_failed"] == 0


def test_a_promoted_student_that_decays_is_rolled_back(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    write(tmp_path / "recorded", traffic(trial, 400, 0.02, 0.02))
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    route = record_of(tmp_path / "routing").roles["coder"]
    assert route.mode == "fallback"
    later = [
        row(1000 + n, f"d{n}", {"mode": "fallback", "trial": route.trial, "arm": "student", "share": 1.0}, answer)
        for n, answer in enumerate(["yes"] * 100 + ["no"] * 40)
    ]
    write(tmp_path / "recorded", later[:100])
    run_all(one, clock)
    clock.now += 4000  # numbers 401 to 999 have no rows
    one.step()
    assert record_of(tmp_path / "routing").roles["coder"].mode == "fallback"
    write(tmp_path / "recorded", later[100:])
    run_all(one, clock)
    last = record_of(tmp_path / "routing").events[-1]
    assert (last.mode, last.action) == ("teacher", "roll_back")


def test_a_kill_at_any_moment_skips_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    results = []
    for kills in (0, 25):
        folder = tmp_path / str(kills)
        folder.mkdir()
        trial, clock, chance = canary(folder), Clock(), random.Random(2)
        rows = traffic(trial, 300, 0.1, 0.1)
        one = assessor(folder, config(), clock)
        for start in range(0, 300, 10):
            path = write(folder / "recorded", rows[start : start + 10], start // 100 + 1)
            if start % 100 == 90:
                compress(path)
            one.step()
            clock.now += 1.5
            if kills and chance.random() < 0.8:
                one = assessor(folder, config(), clock)  # as after kill -9: what was not committed is gone
        run_all(one, clock)
        clock.now += 120
        run_all(one, clock)
        results.append((lines(folder, EXCHANGES), lines(folder, CONVERSATIONS), one.canaries.state()))
        one.close()
    assert len(results[0][0]) == len(results[0][1]) == 300
    assert results[0] == results[1]


def test_conversations_count_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    one = assessor(tmp_path, config(), clock)
    write(tmp_path / "recorded", [row(2, "b", route), row(3, "c", route)])
    one.step()
    clock.now += 30
    write(tmp_path / "recorded", [row(1, "a", route)])  # began first, ended last
    one.step()
    clock.now += 40  # b and c are over, a is not
    one.step()
    assert lines(tmp_path, CONVERSATIONS) == []
    clock.now += 40
    one.step()
    one.commit()
    assert [found["conversation"] for found in lines(tmp_path, CONVERSATIONS)] == ["a", "b", "c"]


def test_a_conversation_that_comes_after_later_ones_proves_nothing(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    one = assessor(tmp_path, config(), clock)
    write(tmp_path / "recorded", [row(2, "b", route)])
    for pause in (61, 4000, 0):
        one.step()
        clock.now += pause
    write(tmp_path / "recorded", [row(1, "a", route)])
    run_all(one, clock)
    one.commit()
    found = [(line["conversation"], line.get("failed"), line["by"]) for line in lines(tmp_path, CONVERSATIONS)]
    assert found == [("b", 0.0, "checks"), ("a", None, "late")]


def test_several_exchanges_are_one_conversation_and_a_fallback_is_a_failure(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    rows = [
        row(1, "a", route), row(2, "a", {**route, "fallback": "silent"}), row(3, "a", route, "no"),
        row(4, "a", route, "", outcome="cancelled", why="client_left"), row(5, "a", route),
    ]  # fmt: skip
    write(tmp_path / "recorded", rows)
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    one.commit()
    (found,) = lines(tmp_path, CONVERSATIONS)
    assert (found["exchanges"], found["scored"], found["failed"], found["fallbacks"]) == (5, 4, 0.5, 1)
    assert found["why"] == "silent" and found["by"] == "checks"


def test_a_conversation_that_began_before_the_canary_counts_for_no_arm(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    write(tmp_path / "recorded", [row(1, "a", {"mode": "canary", "trial": trial, "begun_before": True}, "no")])
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    one.commit()
    assert lines(tmp_path, CONVERSATIONS) == [] and lines(tmp_path, EXCHANGES)[0]["failed"] is True


def test_feedback_decides_over_checks_and_late_feedback_is_only_noted(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}

    def said(seq: int, **request: Any) -> dict[str, Any]:
        conversation = request.get("conversation", "")
        return {"recorded": 1, "seq": seq, "outcome": "complete", "path": "/v1/feedback", "conversation": conversation,
                "request": request, "time": "t"}  # fmt: skip

    write(tmp_path / "recorded", [
        row(1, "a", route, "no"), said(2, exchange=1, success=True),
        row(3, "b", route), said(4, conversation="b", score=0.25, final=True),
        row(5, "c", route), said(6, conversation="nobody", success=True),
    ])  # fmt: skip
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    write(tmp_path / "recorded", [said(7, conversation="c", success=False)])
    run_all(one, clock)
    one.commit()
    found = {line["conversation"]: line for line in lines(tmp_path, CONVERSATIONS)}
    assert [found[name]["failed"] for name in "abc"] == [0.0, 0.75, 0.0]
    assert [line["in_time"] for line in lines(tmp_path, FEEDBACKS)] == [True, True, False, False]


def test_a_later_turn_decides_if_a_credit_rule_says_so(tmp_path: Path) -> None:
    rule = {"role": "coder", "needs": [{"role": "reviewer", "matches": "LGTM"}]}
    settings = parse_config({"curate": {"credit": [rule]}, "route": {"conversation_s": 60}}, "test")
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    write(tmp_path / "recorded", [
        row(1, "a", route), row(2, "b", route), row(3, "b", {}, "not yet", role="reviewer"),
        row(4, "a", {}, "LGTM", role="reviewer"),
    ])  # fmt: skip
    (tmp_path / "routing" / "undelivered").mkdir(parents=True)
    one = Assessor(tmp_path / "recorded", tmp_path / "routing", settings, Judge(settings, tmp_path), print, clock)
    run_all(one, clock)
    one.commit()
    found = {line["conversation"]: (line["failed"], line["by"]) for line in lines(tmp_path, CONVERSATIONS)}
    assert found == {"a": (0.0, "credit"), "b": (1.0, "credit")}


def test_errors_and_slow_answers_are_failures_and_requests_that_were_wrong_say_nothing(tmp_path: Path) -> None:
    route = {"mode": "canary", "trial": 1, "arm": "teacher", "share": 0.5}
    write(tmp_path / "recorded", [
        row(1, "", route, status=500), row(2, "", route, status=429), row(3, "", route, "", status=400),
        row(4, "", route, outcome="failed", why="upstream_silent"), row(5, "", route, "", outcome="refused"),
        row(6, "", route, duration_ms=13_000), row(7, "", route, outcome="cut", why="recorder_ended"),
    ])  # fmt: skip
    one = assessor(tmp_path, config(most_s=12), Clock())
    one.step()
    one.commit()
    found = [(line.get("failed"), line.get("why", "")) for line in lines(tmp_path, EXCHANGES)]
    assert found == [
        (True, "status_500"), (True, "status_429"), (None, ""), (True, "error"), (None, ""), (True, "slow"), (None, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("answer", "failed"), [("x = 1", False), ("x = (", True)])
def test_answers_of_the_student_are_judged_like_those_of_the_teacher(tmp_path: Path, answer: str, failed: bool) -> None:
    settings = parse_config({"roles": {"coder": {"checks": ["python_parses"]}}}, "test")
    judge = Judge(settings, tmp_path)
    student, teacher = {"mode": "canary", "arm": "student"}, {"mode": "canary", "arm": "teacher"}
    pair = row(3, "", {"mode": "shadow", "arm": "student"}, answer, of=1)
    pair["reference"] = row(0, "", {}, "y = 2")["response"]
    for one in (row(1, "", student, answer), row(2, "", teacher, answer), pair):
        found = exchange_of(one, judge, None, delivered="of" not in one)
        assert found.failed is failed, one
    assert found.teacher_checked == "pass"


def test_text_that_is_no_unicode_and_rows_that_raise_do_not_end_it(tmp_path: Path) -> None:
    told: list[str] = []
    broken = row(2, "b", {})
    del broken["response"]
    write(tmp_path / "recorded", [row(1, "M\udcfcller", {}, model="\ud800"), broken, row(3, "c", {})])
    one = assessor(tmp_path, config(), Clock(), told)
    one.step()
    one.commit()
    assert [(line["seq"], line["conversation"]) for line in lines(tmp_path, EXCHANGES)] == [(1, "M?ller"), (3, "c")]
    assert len(told) == 1 and "row 2 does not count: KeyError" in told[0]


def test_a_repeated_id_counts_once_in_a_canary_which_is_said_and_again_after_it(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    one = assessor(tmp_path, config(), clock)
    for number in range(1, 4):
        write(tmp_path / "recorded", [row(number, "nightly", route)])
        run_all(one, clock)
    one = assessor(tmp_path, config(), clock)  # it remembers
    write(tmp_path / "recorded", [row(4, "nightly", route)])
    run_all(one, clock)
    one.commit()
    assert len(lines(tmp_path, CONVERSATIONS)) == 1
    assert json.loads((tmp_path / "routing" / "canaries.json").read_text())["roles"]["coder"]["ignored"] == 3
    made = changed(tmp_path / "routing", "coder", "fallback")
    assert made is not None
    for number in range(5, 8):
        write(tmp_path / "recorded", [row(number, "nightly", {**route, "mode": "fallback", "trial": made.trial})])
        run_all(one, clock)
    one.commit()
    assert len(lines(tmp_path, CONVERSATIONS)) == 4


def test_a_kill_right_after_a_promotion_leaves_the_student_watched(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    write(tmp_path / "recorded", traffic(trial, 400, 0.02, 0.02))
    one = assessor(tmp_path, config(), clock)
    commit, killed = one.commit, []

    def at_most_one_with_a_decision() -> None:
        if killed:
            return
        commit_state = one.canaries.carry_out

        def killed_after() -> bool:
            if commit_state():
                killed.append(True)
            return False

        one.canaries.carry_out = killed_after  # type: ignore[method-assign]
        commit()
        one.canaries.carry_out = commit_state  # type: ignore[method-assign]

    one.commit = at_most_one_with_a_decision  # type: ignore[method-assign]
    run_all(one, clock)
    assert killed
    route = record_of(tmp_path / "routing").roles["coder"]
    assert route.mode == "fallback"
    told = {"mode": "fallback", "trial": route.trial, "arm": "student", "share": 1.0}
    write(tmp_path / "recorded", [row(401 + n, f"d{n}", told, "no") for n in range(60)])
    run_all(assessor(tmp_path, config(), clock), clock)
    assert record_of(tmp_path / "routing").events[-1].action == "roll_back"


def test_a_change_between_fallback_and_student_keeps_what_was_promised(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    write(tmp_path / "recorded", traffic(trial, 400, 0.02, 0.02))
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    made = changed(tmp_path / "routing", "coder", "student")
    assert made is not None
    told = {"mode": "student", "trial": made.trial, "arm": "student", "share": 1.0}
    write(tmp_path / "recorded", [row(401 + n, f"d{n}", told, "no") for n in range(60)])
    run_all(one, clock)
    assert record_of(tmp_path / "routing").events[-1].action == "roll_back"


def test_another_recorders_folder_is_noticed_and_trials_go_on(tmp_path: Path) -> None:
    trial, clock, told = canary(tmp_path), Clock(), list[str]()
    write(tmp_path / "recorded", traffic(trial, 100, 0.02, 0.02), 3)
    one = assessor(tmp_path, config(), clock)
    run_all(one, clock)
    one.close()
    (tmp_path / "recorded").rename(tmp_path / "old")
    more = [{**found, "conversation": f"new {found['conversation']}"} for found in traffic(trial, 300, 0.02, 0.02)]
    write(tmp_path / "recorded", more, 1)
    one = assessor(tmp_path, config(), clock, told)
    run_all(one, clock)
    assert "is not the folder that was followed" in told[0]
    assert len(lines(tmp_path, EXCHANGES)) == 300
    assert record_of(tmp_path / "routing").roles["coder"].mode == "fallback"


def test_a_removed_routes_file_begins_no_trial_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    trial = canary(tmp_path)
    (tmp_path / "routing" / "routes.json").unlink()
    assert canary(tmp_path) >= trial


def test_another_bundle_sends_rolled_back_roles_to_shadow_and_leaves_others_where_the_user_put_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "routing"
    folder.mkdir()
    for role, mode in (("rolled", "fallback"), ("kept", "fallback"), ("off", "teacher"), ("watched", "shadow")):
        changed(folder, role, mode, release="one")  # type: ignore[arg-type]
    changed(folder, "rolled", "teacher", action="roll_back")
    before = record_of(folder).roles["watched"].trial
    back_to_shadow(folder, "two")
    roles = record_of(folder).roles
    assert {role: one.mode for role, one in roles.items()} == {
        "rolled": "shadow", "kept": "shadow", "off": "teacher", "watched": "shadow",
    }  # fmt: skip
    assert {one.release for one in roles.values()} == {"two"} and roles["watched"].trial > before
    made = changed(folder, "off", "canary")
    assert made is not None and made.release == "two"


def test_an_answer_on_its_way_keeps_its_conversation_open(tmp_path: Path) -> None:
    trial, clock = canary(tmp_path), Clock()
    route = {"mode": "canary", "trial": trial, "arm": "student", "share": 0.5}
    one = assessor(tmp_path, config(), clock)
    write(tmp_path / "recorded", [row(1, "a", route), {**row(3, "b", {}), "assigned": 3}])
    one.step()
    clock.now += 100  # exchange 2 is still streaming
    one.step()
    write(tmp_path / "recorded", [row(2, "a", {**route, "fallback": "silent"})])
    run_all(one, clock)
    one.commit()
    (found,) = lines(tmp_path, CONVERSATIONS)
    assert (found["exchanges"], found["failed"]) == (2, 0.5)


def test_many_gaps_are_waited_for_together() -> None:
    seen = Seen(0.0)
    for number in range(2, 130, 2):
        seen.add(number, number, 1.0)
    assert seen.mark(50.0, 60.0) == 0 and seen.mark(61.0, 60.0) == 128


def test_a_request_that_both_refuse_says_nothing_and_one_that_was_given_up_does(tmp_path: Path) -> None:
    route = {"mode": "canary", "trial": 1, "arm": "student", "share": 0.5}
    write(tmp_path / "recorded", [
        row(1, "", {**route, "fallback": "status_400"}, "", status=400),
        row(2, "", {**route, "fallback": "status_400"}), row(3, "", {**route, "fallback": "status_429"}, status=400),
        row(4, "", route, "", outcome="cancelled", duration_ms=11_000),
        row(5, "", route, "", outcome="cancelled", duration_ms=11_000, first_ms=300),
        row(6, "", route, "", outcome="cancelled", duration_ms=900),
    ])  # fmt: skip
    one = assessor(tmp_path, config(), Clock())
    one.step()
    one.commit()
    assert [line.get("failed") for line in lines(tmp_path, EXCHANGES)] == [None, True, True, True, None, None]


def test_a_compressed_file_is_read_once_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    compress(write(tmp_path / "recorded", [row(n, "", {}) for n in range(1, 50)]))
    one = assessor(tmp_path, config(), Clock(), told)
    assert one.step() == 49 and one._delivered.cursor.file == 2
    compress(write(tmp_path / "recorded", [row(n, "", {}) for n in range(50, 100)], 2))
    (path,) = (tmp_path / "recorded").glob("rows-000002*")
    path.write_bytes(path.read_bytes()[:-40])
    write(tmp_path / "recorded", [row(100, "", {})], 3)
    one.step()
    one.commit()
    assert lines(tmp_path, EXCHANGES)[-1]["seq"] == 100
    assert len(told) == 1 and "rows-000002" in told[0]


def test_what_is_no_row_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    path = write(folder, [row(1, "a", {})])
    with path.open("ab") as out:
        out.write(b"not json\n[1]\n{}\n" + json.dumps({"seq": 2, "path": "/v1/models"}).encode() + b"\n{half")
    one = assessor(tmp_path, config(), Clock())
    assert one.step() == 5 and one.step() == 0
    one.commit()
    assert [line["seq"] for line in lines(tmp_path, EXCHANGES)] == [1]
