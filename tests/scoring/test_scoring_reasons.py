"""Reasons of checks: codes across processes, pipes, weights, summaries and the files of older versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.deciding.rules import success
from journeyman.manifests import (
    ArmSummary,
    CheckRule,
    DecisionManifest,
    EvaluationManifest,
    RegressionResult,
    RuleResult,
)
from journeyman.reasons import ReasonRecord, Text
from journeyman.reasons.checking import DataOfOtherType, Weighed
from journeyman.reasons.scoring import (
    BrokeProtocol,
    CodeExited,
    CodeRaised,
    CutOff,
    Differs,
    EmptyAnswer,
    NotEnded,
    NotOverPipe,
    RefusedAnswer,
    SyntaxInvalid,
    TextMissing,
)
from journeyman.records import Score
from journeyman.reporting.junit import write_junit
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits, RunResult
from journeyman.scoring.inside import Inside
from journeyman.scoring.sandbox import _result
from journeyman.scoring.summary import Results
from journeyman.stages.decide import _notes
from test_decide import evaluation, summary

LIMITS = Limits()
REGRESSION = {"n": 0, "base": 0, "tuned": 0, "wins": 0, "losses": 0, "p_value": None}


def judged(checks: list[str] | dict[str, float], text: str, finish_reason: str = "stop", **data: Any) -> Any:
    rule = CheckRule(checks=checks) if isinstance(checks, list) else CheckRule(checks=[], weights=checks)
    return judge(Answer(text, finish_reason, data, LIMITS), rule, Checks(Path()))


@pytest.mark.parametrize(
    ("check", "text", "finish_reason", "data", "reason"),
    [
        ("answered", " ", "stop", {}, EmptyAnswer()),
        ("answered", "Sorry, I can't do that.", "stop", {}, RefusedAnswer("opening")),
        ("answered", "No.", "content_filter", {}, RefusedAnswer("content_filter")),
        ("answered", "1, 2, 3", "length", {}, CutOff()),
        ("answered", "1, 2, 3", "error", {}, NotEnded("error")),
        ("exact", "ab", "stop", {"expected": "ax"}, Differs(1, "b", "x")),
        ("contains", "a", "stop", {"contains": ["a", "\x1b[2J"]}, TextMissing("\\x1b[2J")),
        ("contains", "a", "stop", {"contains": 5}, DataOfOtherType("contains", "text or a list of strings")),
        ("python_parses", "(", "stop", {}, SyntaxInvalid("SyntaxError: '(' was never closed (<unknown>, line 1)")),
    ],
)
def test_a_finding_names_its_reason(check: str, text: str, finish_reason: str, data: Any, reason: Any) -> None:
    assert judged([check], text, finish_reason, **data).finding.reason == reason


@pytest.mark.parametrize(
    ("text", "finish_reason", "cause"),
    [("no", "length", "cut_off"), ("no", "stop", "text_missing"), ("", "stop", "empty_answer"), ("yes", "stop", "")],
)
def test_weights_name_what_failed(text: str, finish_reason: str, cause: str) -> None:
    """`answered` is named as the cause before heavier checks, because without an answer none of them could pass."""
    made = judged({"answered": 0.1, "contains": 0.6, "exact": 0.3}, text, finish_reason, contains="yes", expected="yes")
    assert isinstance(made.finding.reason, Weighed) and made.finding.reason.cause == cause
    counted = _arm([_verdict("1", made.finding.reason), _verdict("2", EmptyAnswer())] if cause else [])
    assert [(one.code, one.n) for one in counted.failures] == _expected(cause)


def _expected(cause: str) -> list[tuple[str, int]]:
    return [("empty_answer", 2)] if cause == "empty_answer" else [(cause, 1), ("empty_answer", 1)] if cause else []


def _verdict(row: str, reason: Any) -> Score:
    return Score(id=row, role="coder", arm="tuned", outcome="fail", check="c", reason=reason.record())


def _arm(verdicts: list[Score]) -> ArmSummary:
    groups = {one.id: one.id for one in verdicts}
    return Results(groups, ["tuned"], ["tuned"], [], [], verdicts).summary("coder", 0.95).arms["tuned"]


def test_failures_are_counted_by_code_and_show_one_of_them() -> None:
    verdicts = [_verdict(str(n), Differs(n, "a", "b")) for n in range(5)] + [_verdict("x", CutOff())]
    found = _arm(verdicts).failures
    assert [(one.check, one.code, one.n) for one in found] == [("c", "differs", 5), ("c", "cut_off", 1)]
    assert found[0].example == Differs(0, "a", "b").record() and "character 0" in found[0].sentence()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"passed": True, "code": "raised", "detail": "x"}, RunResult(True)),
        ({"passed": False, "code": "raised", "detail": "E\x1b"}, RunResult(False, CodeRaised("E\\x1b"))),
        ({"passed": False, "code": "broke_protocol", "detail": "x"}, RunResult(False, BrokeProtocol("x"))),
        ({"passed": None, "code": "not_over_pipe", "detail": "x"}, RunResult(None, NotOverPipe("x"))),
        ({"passed": False, "code": "gone", "detail": ""}, RunResult(False, CodeExited(3))),
        ({"passed": "yes", "code": ["no_sandbox"], "detail": {}}, RunResult(False, CodeRaised("{}"))),
        ({"passed": False}, RunResult(False, CodeRaised(""))),
    ],
)
def test_codes_of_the_sandbox(said: dict[str, Any], expected: RunResult) -> None:
    inside = Inside(begun=True, ends={"judge": 0, "answer": 3 << 8})
    inside.take(json.dumps(said))
    inside.take(json.dumps({"passed": True, "code": "", "detail": ""}))
    assert _result(inside, LIMITS) == expected, "the first verdict counts"


# --- files of older versions ---


def test_a_score_with_text_opens() -> None:
    old = {"id": "1", "role": "r", "arm": "a", "outcome": "fail", "check": "exact", "detail": "differs from sign 3"}
    assert Score.model_validate(old).reason == Text("differs from sign 3").record()
    assert Score.model_validate({**old, "detail": ""}).why() == ""
    assert Score.model_validate_json(json.dumps(old)).why() == "differs from sign 3"


def test_failures_as_text_open_with_the_codes_that_advice_needs() -> None:
    old = {
        "answered: did not end by itself: length": 4, "answered: did not end by itself: error": 2, "c: ": 1,
        "answered: opens with a refusal": 3, "exact: differs from sign 0 on: 'a: b'": 1,
    }  # fmt: skip
    read = ArmSummary.model_validate({"success": None, "unscored": 0, "failures": old}).failures
    assert [(one.check, one.code, one.n) for one in read] == [
        ("answered", "cut_off", 4), ("answered", "not_ended", 2), ("c", "", 1), ("answered", "refused_answer", 3),
        ("exact", "text", 1),
    ]  # fmt: skip
    assert read[-1].sentence() == "exact: differs from sign 0 on: 'a: b'"


@pytest.mark.parametrize(
    ("old", "kind"),
    [
        ("bubblewrap 0.8.0", "bubblewrap"),
        ("namespaces and seccomp", "namespaces"),
        ("none: code runs unprotected (evaluate.unsafe_exec)", "none"),
        ("no sandbox: namespaces of its own: Operation not permitted", "unavailable"),
        ("", None),
    ],
)
def test_a_sandbox_in_words_opens(old: str, kind: str | None) -> None:
    given = evaluation({"all": summary(9, 9)}, {"tuned": 1.0}).model_dump()
    read = EvaluationManifest.model_validate({**given, "sandbox": old})
    assert (read.sandbox and read.sandbox.kind, read.sandbox and read.sandbox.description) == (kind, kind and old)
    assert [note.code for note in _notes(read)] == (["unprotected"] if kind == "none" else [])


def test_a_decision_in_words_opens_and_is_shown(tmp_path: Path) -> None:
    role = {
        "verdict": "iterate", "stretch": False, "rows_needed": None, "next_steps": ["more epochs than 3"],
        "reasons": [{"rule": "success", "outcome": "fail", "reason": "1 of 9"}],
    }  # fmt: skip
    old = {
        "verdict": "iterate", "roles": {"coder": role}, "deployed_roles": [], "ships": "tuned", "others": {},
        "notes": ["this is look 2"],
    }  # fmt: skip
    read = DecisionManifest.model_validate(old)
    assert read.notes == [Text("this is look 2").record()]
    assert read.roles["coder"].next_steps[0].sentence() == "more epochs than 3"
    for name in ("verdicts", "predictions"):
        (tmp_path / f"{name}.jsonl").write_text("")
    write_junit(read, tmp_path, tmp_path / "junit.xml")
    assert "success: fail: 1 of 9" in (tmp_path / "junit.xml").read_text()
    assert (
        RegressionResult.model_validate({"n": 0, "base": 0, "tuned": 0, "wins": 0, "losses": 0, "p_value": None}).note
        is None
    )


def test_json_contains_codes_and_details() -> None:
    made = success(summary(5, 10).tuned, 0.9)
    shown = json.loads(RuleResult.model_validate(made).model_dump_json())
    assert shown["reason"]["code"] == "success_seen" and shown["reason"]["details"]["passed"] == 5
    assert RuleResult.model_validate(shown).reason.sentence() == made.reason.sentence()


def test_details_of_another_type_than_the_sentence_needs_are_shown_as_they_are() -> None:
    assert (
        ReasonRecord(code="memory_seen", details={"peak": "x", "limit": 1}).sentence()
        == "memory_seen (peak = x, limit = 1)"
    )
