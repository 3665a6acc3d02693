"""A look at made-up traffic: every figure is counted by hand."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from journeyman.api.monitoring import Monitor
from journeyman.monitoring import counting
from journeyman.monitoring.report import Report, RoleReport
from journeyman.stats.rates import wilson
from made_prompts import texts
from made_traffic import (
    CHECKS,
    NOW,
    STUDENT,
    by_student,
    compared,
    conversation,
    event,
    exchange,
    feedback_row,
    row,
    write_exchanges,
    write_routes,
    write_rows,
    write_training,
)


def _look(folder: Path, toml: str = "", **options) -> Report:
    if toml:
        (folder / "journeyman.toml").write_text(toml)
    return Monitor(folder, **options).look(NOW)


def _coder(folder: Path, toml: str = "", **options) -> RoleReport:
    return next(one for one in _look(folder, toml, **options).roles if one.role == "coder")


def _judged(role: str) -> bool:
    return True


def _codes(report: Report) -> set[str]:
    return {note.code for note in report.notes}


# --- nothing, or not much ---


def test_an_empty_folder_knows_nothing(tmp_path: Path) -> None:
    found = _look(tmp_path)
    assert (found.source, found.read, found.roles, found.recorder.state) == ("nothing", 0, [], "stopped")
    assert _codes(found) == {"nothing_recorded"}


def test_rows_without_a_config_file_or_a_student(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(1), row(2, status=500, tokens=None), row(3, outcome="cancelled", first_ms=None)])
    found = _look(tmp_path)
    one = found.roles[0]
    assert (found.source, found.read, found.complete) == ("rows", 3, True)
    assert (one.requests, one.cancelled, one.by_student, one.mode) == (3, 1, None, "")
    assert one.teacher.errors == {"status_500": 1} and one.student.requests == 0
    assert (one.teacher.prompt_tokens, one.teacher.answer_tokens, one.teacher.counted) == (100, 20, 2)
    assert one.teacher.success is None, "if only errors are known, every known answer is a failure"
    assert one.saved is None and one.saved_unknown is None and one.fallbacks is None
    assert one.prompts is None and one.prompts_unknown is not None
    assert one.prompts_unknown.code == "no_trained_prompts" and "nobody_judges" in _codes(found)


def test_rows_in_packed_files_and_outside_the_window(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(1, hours=50), row(2, hours=30)], 1, packed=True)
    write_rows(tmp_path, [row(3, hours=25), row(4, hours=23)], 2, packed=True)
    write_rows(tmp_path, [row(5), row(6, hours=-1)], 3)
    assert _coder(tmp_path).requests == 2
    assert _coder(tmp_path, hours=40).requests == 4
    assert _look(tmp_path, hours=0.5).roles == []


def test_without_checks_success_is_not_known(tmp_path: Path) -> None:
    lines = [exchange(n, failed=None, checked="pass") for n in range(9)] + [exchange(9, status=500, failed=True)]
    write_exchanges(tmp_path, [*lines, by_student(10, failed=True, outcome="cut")])
    write_exchanges(tmp_path, [conversation("c10", 1.0, by="errors")], "conversations.jsonl")
    one = _coder(tmp_path, STUDENT.replace(CHECKS, ""))
    assert one.teacher.success is None and one.student.success is None
    assert one.teacher.errors == {"status_500": 1} and one.student.errors == {"cut": 1}
    write_exchanges(tmp_path, [conversation("c10", 0.2, by="feedback")], "conversations.jsonl")
    success = _coder(tmp_path).student.success
    assert success is not None and (success.part, success.of) == (0.8, 1)


def test_feedback_without_a_student_says_how_it_went(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3, status=500), row(4), feedback_row(5, exchange=1, success=True)]
    rows += [feedback_row(6, conversation="c2", score=0.25), feedback_row(7, exchange=3, success=True)]
    write_rows(tmp_path, [*rows, feedback_row(8, exchange=1, success=False)])
    success = _coder(tmp_path).teacher.success
    assert success is not None and (success.part, success.of, success.unit) == (1.25, 3, "conversations")


def test_a_truncated_last_line_and_damaged_ones(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [row(1), row(2)])
    path.write_bytes(path.read_bytes() + b"no json\n" + path.read_bytes()[:100])
    found = _look(tmp_path)
    assert found.roles[0].requests == 2 and "lines_not_readable" in _codes(found)
    path = write_exchanges(tmp_path, [exchange(1), exchange(2)])
    path.write_bytes(path.read_bytes() + b'{"seq": 3}\n' + path.read_bytes()[:50])
    found = _look(tmp_path, STUDENT)
    assert (found.source, found.read, found.roles[0].requests) == ("exchanges", 3, 2)
    assert "lines_not_readable" in _codes(found)


def test_rows_without_contents_are_said(tmp_path: Path) -> None:
    bare = {"recorded": 1, "seq": 2, "assigned": 2, "outcome": "cut", "why": "journal_full", "lost": True}
    write_rows(tmp_path, [row(1), bare, row(3, lost=True)])
    found = _look(tmp_path)
    assert {note.code: note.details for note in found.notes}["rows_lost"] == {"rows": 2}
    assert found.roles[0].requests == 2


def test_a_damaged_packed_file_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(2)], 2)
    path = write_rows(tmp_path, [row(1)], 1, packed=True)
    path.write_bytes(path.read_bytes()[:60])
    found = _look(tmp_path)
    assert found.roles[0].requests == 1 and "lines_not_readable" in _codes(found)


# --- with a student ---


def test_who_answered_and_why_not(tmp_path: Path) -> None:
    lines = [by_student(n, first_ms=n, duration_ms=10 * n) for n in range(1, 81)]
    lines += [by_student(n, fallback="silent", why="silent", failed=True, model="gpt-x") for n in range(81, 96)]
    lines += [by_student(n, fallback="check_regex", failed=True, model="gpt-x") for n in range(96, 101)]
    lines += [by_student(101, status=400, failed=None, checked="unscored"), by_student(102, outcome="cut", failed=True)]
    write_exchanges(tmp_path, lines)
    write_exchanges(tmp_path, [conversation(f"c{n}", float(n > 80)) for n in range(1, 101)], "conversations.jsonl")
    write_routes(tmp_path)
    one = _coder(tmp_path, STUDENT)
    assert (one.mode, one.requests, one.by_student, one.wrong) == ("fallback", 102, 82, 1)
    assert one.fallback_reasons == {"silent": 15, "check_regex": 5}
    assert one.fallbacks is not None and (one.fallbacks.part, one.fallbacks.of) == (20, 102)
    assert (one.fallbacks.low, one.fallbacks.high) == wilson(20, 102, 0.95)
    success = one.student.success
    assert success is not None and (success.part, success.of, success.unit) == (80, 100, "conversations")
    assert (success.low, success.high) == wilson(80, 100, 0.95)
    assert one.student.errors == {"cut": 1} and one.teacher.requests == 20
    first, whole = one.student.first, one.student.whole
    assert first is not None and (first.answers, first.p50, first.p95, first.p99) == (80, 40, 76, 80)
    assert whole is not None and (whole.p50, whole.p95) == (400, 760)
    assert one.teacher.whole is None, "after a fallback, the time is not the teacher's alone"


def test_requests_of_one_conversation_count_as_fewer(tmp_path: Path) -> None:
    lines = [by_student(n, conversation=f"c{n % 4}", fallback="slow" if n % 4 == 0 else "") for n in range(100)]
    write_exchanges(tmp_path, lines)
    share = _coder(tmp_path, STUDENT).fallbacks
    assert share is not None and (share.part, share.of) == (25, 100)
    assert (share.low, share.high) == wilson(1, 4, 0.95)


def test_success_counts_conversations_and_their_parts(tmp_path: Path) -> None:
    lines = [exchange(n, conversation="long", failed=n % 2 == 0) for n in range(10)]
    lines += [exchange(20, conversation="other"), exchange(21, conversation="third", failed=None)]
    write_exchanges(tmp_path, lines)
    success = _coder(tmp_path, STUDENT).teacher.success
    assert success is not None and (success.part, success.of, success.unit) == (1.5, 2, "conversations")
    write_exchanges(tmp_path, [exchange(n, conversation="", failed=n == 0) for n in range(5)])
    success = _coder(tmp_path).teacher.success
    assert success is not None and (success.part, success.of, success.unit) == (4, 5, "requests")


def test_a_shadow_is_shown_apart(tmp_path: Path) -> None:
    lines = [exchange(n, mode="shadow") for n in range(20)]
    lines += [compared(n, failed=n < 5, why="check_regex", first_ms=None) for n in range(20)]
    lines += [compared(30, failed=True, teacher_checked="fail")]
    write_exchanges(tmp_path, lines)
    write_routes(tmp_path, "shadow")
    one = _coder(tmp_path, STUDENT)
    assert (one.requests, one.by_student, one.shadow.requests, one.student.requests) == (20, 0, 21, 0)
    success = one.shadow.success
    assert success is not None and (success.part, success.of) == (15, 21)
    assert one.failed_rows == 5, "an answer of the teacher that failed as well teaches nothing"


def test_saved_costs_are_known_or_not(tmp_path: Path) -> None:
    prices = '[monitor.prices."gpt-x*"]\nprompt = 2.0\nanswer = 8.0\n'
    lines = [by_student(n, prompt_tokens=1000, answer_tokens=500) for n in range(10)]
    write_exchanges(tmp_path, [*lines, by_student(10, prompt_tokens=0, answer_tokens=0)])
    one = _coder(tmp_path, STUDENT + prices)
    assert one.saved is None and one.saved_unknown is not None and one.saved_unknown.code == "teacher_not_known"
    one = _coder(tmp_path, STUDENT + prices + '[monitor.teachers]\ncoder = "gpt-x-large"\n')
    assert one.saved is not None and one.saved.dollars == pytest.approx(10 * (1000 * 2 + 500 * 8) / 1e6)
    assert (one.saved.model, one.saved.requests, one.saved.of) == ("gpt-x-large", 10, 11)
    write_exchanges(tmp_path, [*lines, exchange(20, model="claude")])
    one = _coder(tmp_path, STUDENT + prices)
    assert one.saved is None and one.saved_unknown is not None
    assert one.saved_unknown.details == {"model": "claude"}
    write_exchanges(tmp_path, [by_student(1, prompt_tokens=0, answer_tokens=0), exchange(2, model="gpt-x")])
    one = _coder(tmp_path, STUDENT + prices)
    assert one.saved is None and one.saved_unknown is not None and one.saved_unknown.code == "tokens_not_known"


def test_a_role_can_be_chosen(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(1), exchange(2, role="tester"), exchange(3, role="tester")])
    assert [one.role for one in _look(tmp_path, STUDENT).roles] == ["tester", "coder"]
    assert [one.role for one in _look(tmp_path, role="coder").roles] == ["coder"]


def test_rows_that_nobody_has_judged_yet_are_said(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(1)])
    write_rows(tmp_path, [row(2000)])
    found = _look(tmp_path, STUDENT)
    assert "not_judged_yet" in _codes(found)


def test_changes_of_routes_and_damaged_files(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(1)])
    events = [event(1, "command", "teacher", "canary"), event(2, "promote", "canary", "fallback", why="good")]
    write_routes(tmp_path, "fallback", [*events, event(3, "roll_back", "fallback", "teacher", why="worse")])
    assert [one.action for one in _look(tmp_path, STUDENT).changes] == ["promote", "roll_back"]
    (tmp_path / "routing" / "routes.json").write_text("{")
    (tmp_path / "routing" / "canaries.json").write_text("[]")
    found = _look(tmp_path)
    assert [note.code for note in found.notes].count("file_not_usable") == 2 and found.roles[0].requests == 1


def test_what_the_canary_says_is_passed_on(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(1, mode="canary")])
    write_routes(tmp_path, "canary")
    figures = {"difference": 0.01, "difference_low": -0.2, "difference_high": 0.22}
    state = {"verdict": "go_on", "why": "too few", "figures": figures, "pairs": {"both": 3, "errors": 1}}
    (tmp_path / "routing" / "canaries.json").write_text(json.dumps({"roles": {"coder": state}}))
    one = _coder(tmp_path, STUDENT)
    assert (one.canary, one.canary_why, one.pairs) == ("go_on", "too few", {"both": 3, "errors": 1})
    assert one.canary_figures == figures


# --- limits ---


@pytest.mark.slow
def test_a_hundred_thousand_exchanges_in_bounded_memory(tmp_path: Path) -> None:
    lines = (by_student(n, hours=20 * (1 - n / 100_000), conversation=f"c{n // 5}") for n in range(100_000))
    path = write_exchanges(tmp_path, lines)
    (tmp_path / "journeyman.toml").write_text(STUDENT)
    tracemalloc.start()
    try:
        one = _coder(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert one.requests == 100_000
    assert most < 30_000_000 < path.stat().st_size


def test_a_limit_on_lines_is_said(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(n, hours=20 - n / 100) for n in range(1000)])
    traffic, reach = counting.count_exchanges(tmp_path / "routing", NOW - 86_400, NOW, None, _judged, most=300)
    assert traffic.roles["coder"].requests == 300 and not reach.complete
    traffic, reach = counting.count_exchanges(tmp_path / "routing", NOW - 11 * 3600, NOW, 0.0, _judged, most=300)
    assert reach.complete, "only what is older than the window was left out"


def test_lines_older_than_the_window_end_the_search(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [exchange(n, hours=50) for n in range(5000)] + [exchange(5000)])
    traffic, reach = counting.count_exchanges(tmp_path / "routing", NOW - 86_400, NOW, None, _judged)
    assert traffic.roles["coder"].requests == 1 and reach.lines == 2001 and reach.complete


def test_a_limit_on_rows_is_said(tmp_path: Path) -> None:
    for number in range(1, 4):
        write_rows(tmp_path, [row(number)], number)
    traffic, reach = counting.count_rows(
        tmp_path / "recorded", tmp_path, NOW - 86_400, NOW, None, lambda row: None, most_bytes=1
    )  # fmt: skip
    assert traffic.roles["coder"].requests == 1 and not reach.complete


# --- prompts ---


def test_inputs_that_drift_from_the_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write_training(tmp_path, texts(rng, 400))
    write_training(tmp_path, texts(rng, 150), "val.jsonl")
    write_rows(tmp_path, [row(n, text) for n, text in enumerate(texts(rng, 200))])
    one = _coder(tmp_path)
    assert one.drift is not None and one.drift.unknown is None and not one.drift.found
    assert (one.drift.recorded, one.drift.trained, one.drift.held_out) == (200, 550, 150)
    assert one.drift.against == "training" and one.train_again == []
    write_rows(tmp_path, [row(n, text) for n, text in enumerate(texts(rng, 200, foreign=0.4))])
    one = _coder(tmp_path)
    assert one.drift is not None and [test.test for test in one.drift.tests if test.found] == ["vocabulary"]
    assert [reason.code for reason in one.train_again] == ["drift_found"]


def test_without_training_data_older_rows_are_compared_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    write_rows(tmp_path, [row(n, text, hours=40) for n, text in enumerate(texts(rng, 300))], 1)
    write_rows(tmp_path, [row(n + 300, text) for n, text in enumerate(texts(rng, 100, words=150))], 2)
    found = _look(tmp_path)
    drift = found.roles[0].drift
    assert drift is not None and drift.against == "older_rows" and drift.found
    assert (drift.recorded, drift.trained) == (100, 300) and "compared_with_older" in _codes(found)


def test_named_roles_are_compared_with_their_own_older_rows(tmp_path: Path) -> None:
    """Invented roles, however many and early they are, do not take their places."""
    rng = np.random.default_rng(3)
    invented = [row(n, role=f"invented {n}", hours=50) for n in range(40)]
    write_rows(tmp_path, [*invented, *(row(n + 50, text, hours=40) for n, text in enumerate(texts(rng, 200)))], 1)
    write_rows(tmp_path, [row(n + 300, text) for n, text in enumerate(texts(rng, 50))], 2)
    drift = _coder(tmp_path, "[[record.roles]]\nrole = 'coder'\nmodel = 'x'\n").drift
    assert drift is not None and drift.trained == 200 and drift.tests


@pytest.mark.parametrize("trained", [None, "another role"])
def test_a_role_without_training_data_and_older_rows(tmp_path: Path, trained: str | None) -> None:
    if trained:
        write_training(tmp_path, texts(np.random.default_rng(5), 50), role=trained)
    write_rows(tmp_path, [row(n, text) for n, text in enumerate(texts(np.random.default_rng(4), 50))])
    drift = _coder(tmp_path).drift
    assert drift is not None and drift.unknown is not None and drift.unknown.code == "nothing_to_compare_with"


def test_a_conversation_and_a_text_count_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    write_training(tmp_path, texts(rng, 400))
    rows = [row(n, text, conversation="one") for n, text in enumerate(texts(rng, 100, words=200))]
    rows += [row(n + 100, "the same text") for n in range(100)]
    rows += [row(n + 200, text) for n, text in enumerate(texts(rng, 60))]
    write_rows(tmp_path, rows)
    drift = _coder(tmp_path).drift
    assert drift is not None and drift.recorded == 62 and not drift.found


def test_templates_of_which_the_training_kept_one_are_no_drift(tmp_path: Path) -> None:
    """Half of the requests are made from eight long templates; `curate` has kept one of each."""
    rng = np.random.default_rng(5)

    def made(template: int, ticket: int) -> str:
        return " ".join(f"t{template}x{place}" for place in range(160)) + f" ticket {ticket}"

    write_training(tmp_path, [*texts(rng, 400), *(made(template, template) for template in range(8))])
    recorded = [*texts(rng, 100), *(made(n % 8, 1000 + n) for n in range(100))]
    write_rows(tmp_path, [row(n, text) for n, text in enumerate(recorded)])
    drift = _coder(tmp_path).drift
    assert drift is not None and drift.recorded == 108 and not drift.found
    strict = _coder(tmp_path, "[curate]\nnear_duplicate = 1.0\n").drift
    assert strict is not None and strict.recorded > 140 and strict.found, "what the training would look like otherwise"


def test_prompts_are_sampled_the_same_with_a_student(tmp_path: Path) -> None:
    """Rows that the student answered are prompts as well."""
    rng = np.random.default_rng(4)
    write_training(tmp_path, texts(rng, 300))
    route = {"arm": "student", "mode": "student", "trial": 1}
    write_rows(tmp_path, [row(n, text, route=route) for n, text in enumerate(texts(rng, 50))])
    write_exchanges(tmp_path, [by_student(n) for n in range(50)])
    drift = _coder(tmp_path, STUDENT).drift
    assert drift is not None and drift.recorded == 50 and len(drift.tests) == 4


# --- when to train again ---


def test_every_reason_to_train_again(tmp_path: Path) -> None:
    lines = [by_student(n, fallback="silent" if n % 3 == 0 else "", failed=n % 3 == 0) for n in range(300)]
    write_exchanges(tmp_path, lines)
    write_exchanges(tmp_path, [conversation(f"c{n}", float(n % 3 == 0)) for n in range(300)], "conversations.jsonl")
    write_routes(tmp_path)
    limits = "[monitor]\nfailed_rows = 100\nsuccess = 0.9\nfallback_share = 0.2\n"
    reasons = {one.code: one.details for one in _coder(tmp_path, STUDENT + limits).train_again}
    assert set(reasons) == {"success_below", "student_failed", "fallbacks_above"}
    assert reasons["student_failed"] == {"rows": 100, "least": 100}
    assert reasons["success_below"]["of"] == 300 and reasons["success_below"]["promised"] == 0.9
    assert reasons["fallbacks_above"]["top"] == "silent"
    lax = "[monitor]\nfailed_rows = 101\nsuccess = 0.7\nfallback_share = 0.3\n"
    assert _coder(tmp_path, STUDENT + lax).train_again == []


def test_what_the_canary_allowed_is_promised(tmp_path: Path) -> None:
    write_exchanges(tmp_path, [by_student(n) for n in range(100)])
    write_exchanges(tmp_path, [conversation(f"c{n}", float(n < 30)) for n in range(100)], "conversations.jsonl")
    write_routes(tmp_path)
    for allowed, codes in ((0.1, ["success_below"]), (0.35, [])):
        canaries = {"roles": {"coder": {"most_failed": allowed, "verdict": "go_on"}}}
        (tmp_path / "routing" / "canaries.json").write_text(json.dumps(canaries))
        assert [one.code for one in _coder(tmp_path, STUDENT).train_again] == codes
