"""The checks; tests of running model-written code are in test_sandbox.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_http import Asked, Reply, fake_http, json_reply
from journeyman.config import JudgeConfig
from journeyman.errors import UsageError
from journeyman.manifests import CheckRule
from journeyman.reasons import Reason
from journeyman.reasons.checking import CheckRaised, JudgeContradicts, JudgeSays, JudgeUnusable
from journeyman.reasons.scoring import ArgumentDiffers, ArgumentsDiffer, CallMissing, CallTooMany
from journeyman.records import ToolCall
from journeyman.scoring.checks import Checks, check_table, judge
from journeyman.scoring.code_block import python_source
from journeyman.scoring.contracts import Answer, Limits
from journeyman.scoring.similarity import rouge_l

FAST = Limits(wall_s=3.0, cpu_s=1)
RIGHT = "def add(a, b):\n    return a + b"
WRONG = ["def add(a, b):\n    return a - b", "def add(a, b):\n    return 3"]


def outcome(check: str, text: str, finish: str = "stop", **data: Any) -> str:
    return check_table()[check](Answer(text, finish, data, FAST)).outcome


def test_answered() -> None:
    assert outcome("answered", "yes") == "pass"
    assert outcome("answered", " ") == "fail"
    assert outcome("answered", "yes", "length") == "fail"
    assert outcome("answered", "I'm sorry, but I can't help with that.") == "fail"
    assert outcome("answered", "x", "content_filter") == "fail"
    assert outcome("answered", "Sorry for the wait: here is the code.") == "pass"


def test_code_is_found_in_fences_and_outside() -> None:
    assert python_source("Here:\n```python\nx = 1\n```\nand\n```py\ny = 2\n```") == "x = 1\n\ny = 2"
    assert python_source("```\nx = 1\n```") == "x = 1"
    assert python_source("x = 1") == "x = 1"


def test_python_parses() -> None:
    assert outcome("python_parses", "```python\nx = 1\n```") == "pass"
    assert outcome("python_parses", "x = (") == "fail"
    assert outcome("python_parses", "```python\n# nothing\n```") == "fail"


def test_python_tests() -> None:
    assert outcome("python_tests", f"```python\n{RIGHT}\n```", tests="assert add(1, 2) == 3") == "pass"
    assert outcome("python_tests", WRONG[0], tests="assert add(1, 2) == 3") == "fail"
    assert outcome("python_tests", RIGHT) == "unscored"


def test_catches_mutants() -> None:
    good = "def test_a():\n    assert add(1, 2) == 3\ndef test_b():\n    assert add(2, 2) == 4"
    weak = "def test_a():\n    assert add(1, 2) == 3"
    in_class = "class TestAdd:\n    def test_a(self):\n        assert add(2, 2) == 4"
    assert outcome("catches_mutants", good, right=RIGHT, wrong=WRONG) == "pass"
    assert outcome("catches_mutants", in_class, right=RIGHT, wrong=WRONG) == "pass"
    assert outcome("catches_mutants", weak, right=RIGHT, wrong=WRONG) == "fail"
    assert outcome("catches_mutants", "assert add(1, 2) == 3", right=RIGHT, wrong=WRONG) == "fail"
    assert outcome("catches_mutants", good, right=WRONG[0], wrong=WRONG) == "fail"
    assert outcome("catches_mutants", good) == "unscored"


def test_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    assert outcome("json_schema", '{"a": 1}', schema=schema) == "pass"
    assert outcome("json_schema", '```json\n{"a": 1}\n```', schema=schema) == "pass"
    assert outcome("json_schema", '{"a": 2}', schema=schema) == "fail"
    assert outcome("json_schema", "no", schema=schema) == "fail"
    assert outcome("json_schema", "[" * 100_000, schema=schema) == "fail"
    assert outcome("json_schema", "{}") == "unscored"


def test_regex() -> None:
    assert outcome("regex", "a\nb", pattern="^b$") == "pass"
    assert outcome("regex", "a", pattern="b") == "fail"
    assert outcome("regex", "a") == "unscored"


def test_judge_names_the_first_check_that_does_not_pass() -> None:
    made = judge(
        Answer("x = (", "stop", {}, FAST),
        CheckRule(checks=["answered", "python_parses", "python_tests"]),
        Checks(Path()),
    )
    assert (made.check, made.finding.outcome) == ("python_parses", "fail")
    assert made.outcomes == {"answered": "pass", "python_parses": "fail"}, "later checks are skipped"


def test_exact_and_normalized() -> None:
    assert outcome("exact", " yes\n", expected="yes") == "pass"
    assert outcome("exact", "Yes.", expected="yes") == "fail"
    assert outcome("normalized", "Yes.", expected="yes") == "pass"
    assert outcome("normalized", "The \uff21nswer:  is  42", expected="the answer is 42") == "pass", (
        "wide letters are letters"
    )
    assert outcome("normalized", "4.2", expected="42") == "fail"
    assert outcome("exact", "yes") == "unscored"
    of_teacher = Answer("yes", "stop", {}, FAST, reference="yes")
    assert check_table()["exact"](of_teacher).outcome == "pass"


def test_contains() -> None:
    assert outcome("contains", "one and two", contains=["one", "two"]) == "pass"
    assert outcome("contains", "one", contains=["one", "two"]) == "fail"
    assert outcome("contains", "one", contains="one") == "pass"
    assert outcome("contains", "one") == "unscored" == outcome("contains", "one", contains=[1])


@pytest.mark.parametrize(
    ("found", "expected", "value"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("the gunman kill police", "police kill the gunman", 0.5),
        ("a b c", "a b c", 1.0),
        ("", "a", 0.0),
        ("a", "b", 0.0),
    ],
)
def test_rouge_l(found: str, expected: str, value: float) -> None:
    """The first two are the examples of Lin (2004), where precision and recall are the same."""
    assert rouge_l(found.split(), expected.split()) == pytest.approx(value)


@given(st.lists(st.sampled_from("abcd"), max_size=9), st.lists(st.sampled_from("abcd"), max_size=9))
def test_the_common_subsequence_equals_the_table_of_the_textbook(left: list[str], right: list[str]) -> None:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    length = table[-1][-1]
    assert rouge_l(left, right) == pytest.approx(2 * length / (len(left) + len(right)) if length else 0.0)


def test_similarity() -> None:
    assert (
        outcome("similarity", "The plan: first test, then ship.", expected="the plan is first test then ship") == "pass"
    )
    assert outcome("similarity", "No.", expected="the plan is first test then ship") == "fail"
    assert outcome("similarity", "a b", expected="a b c", similarity=0.9) == "fail"
    assert outcome("similarity", "a", expected="a", similarity=2) == "unscored"


CALLS = [{"name": "search", "arguments": {"query": "x", "limit": 3}}, {"name": "stop", "arguments": {}}]


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([("stop", {}), ("search", {"limit": 3.0, "query": "x"})], None),
        ([("search", {"query": "x", "limit": 4}), ("stop", {})], ArgumentDiffers("search", "limit", "4", "3")),
        ([("search", {"query": "x"}), ("stop", {})], ArgumentDiffers("search", "limit", None, "3")),
        (
            [("search", {"query": "x", "limit": 3, "page": 1}), ("stop", {})],
            ArgumentDiffers("search", "page", "1", None),
        ),
        ([("find", {"query": "x", "limit": 3}), ("stop", {})], CallMissing("search", "find, stop")),
        ([("search", '{"query": '), ("stop", {})], ArgumentsDiffer("search", '{"query": ', str(CALLS[0]["arguments"]))),
        ([], CallMissing("search", "")),
        ([("search", {"query": "x", "limit": 3}), ("stop", {}), ("stop", {})], CallTooMany("stop")),
    ],
)
def test_tool_calls(calls: list[tuple[str, Any]], said: Reason | None) -> None:
    made = [ToolCall(name=name, arguments=arguments) for name, arguments in calls]
    finding = check_table()["tool_call"](Answer("", "tool_calls", {"calls": CALLS}, FAST, made))
    assert (finding.outcome, finding.reason) == ("fail" if said else "pass", said)


def test_tool_calls_of_the_teacher() -> None:
    call = ToolCall(name="search", arguments={"query": "x"})
    check = check_table()["tool_call"]
    assert check(Answer("", "stop", {}, FAST, [call], "", [call])).outcome == "pass"
    assert check(Answer("", "stop", {}, FAST, [call], "text", [])).outcome == "fail"
    assert check(Answer("text", "stop", {}, FAST, [], "text", [])).outcome == "pass"
    assert check(Answer("", "stop", {}, FAST, [call])).outcome == "unscored"


def test_python_runs() -> None:
    assert outcome("python_runs", "```python\nprint(1)\n```") == "pass"
    assert outcome("python_runs", "1 / 0") == "fail"
    assert outcome("python_runs", "  ") == "fail"


PATCH = "```diff\n--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n```"


def test_patch_applies() -> None:
    files = {"f.py": "x = 1\ny = 2\n"}
    assert outcome("patch_applies", PATCH, files=files) == "pass"
    assert outcome("patch_applies", PATCH, files={"f.py": "x = 1\ny = 9\n"}) == "fail"
    assert outcome("patch_applies", PATCH.replace("f.py", "../f.py"), files=files) == "fail"
    assert outcome("patch_applies", "I would change y.", files=files) == "fail"
    assert outcome("patch_applies", PATCH) == "unscored" == outcome("patch_applies", PATCH, files={"../x": ""})


def test_a_user_check(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(text, data):\n    return len(text) < data['most'], f'{len(text)} signs'\n"
        "def unsure(text, data):\n    return None\n"
        "def odd(text, data):\n    return 'yes'\n"
    )

    def said(name: str) -> tuple[str, str]:
        finding = Checks(tmp_path).named(f"mine.py:{name}")(Answer("four", "stop", {"most": 5}, FAST))
        return finding.outcome, finding.why()

    assert said("short") == ("pass", "4 signs")
    assert said("unsure")[0] == "unscored"
    assert said("odd")[0] == "unscored" and "not True, False or None" in said("odd")[1]
    missing = Checks(tmp_path).named("mine.py:short")(Answer("four", "stop", {}, FAST))
    assert (
        missing.outcome == "unscored" and isinstance(missing.reason, CheckRaised) and "KeyError" in missing.reason.error
    )
    for name in ("mine.py:none", "other.py:short", "nonsense"):
        with pytest.raises(UsageError):
            Checks(tmp_path).named(name)


def test_scorers_of_inspect_ai(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    (tmp_path / "mine.py").write_text(
        "from inspect_ai.scorer import Score, accuracy, match, scorer\n"
        "def at_the_start():\n    return match(location='begin')\n"
        "@scorer(metrics=[accuracy()])\ndef polite():\n"
        "    async def score(state, target):\n"
        "        return Score(value='please' in state.output.completion, explanation=state.input_text)\n"
        "    return score\n"
        "@scorer(metrics=[accuracy()])\ndef broken():\n"
        "    async def score(state, target):\n        raise KeyError('x')\n"
        "    return score\n"
    )

    def said(name: str, text: str, **data: Any) -> tuple[str, str]:
        finding = Checks(tmp_path).named(name)(Answer(text, "stop", data, FAST, task="What is it?"))
        return finding.outcome, finding.why()

    assert said("inspect:includes", "The answer is 42.", expected="42")[0] == "pass"
    assert said("inspect:includes", "The answer is 41.", expected="42")[0] == "fail"
    assert said("inspect:match", "It is 42", expected=["41", "42"])[0] == "pass", "any of several targets"
    assert said("inspect:f1", "red blue", expected="red blue gold grey")[0] == "fail"
    assert said("inspect:f1", "red blue", expected="red blue gold grey", least_score=0.6)[0] == "pass"
    assert said("inspect:includes", "42")[0] == "unscored" == said("inspect:f1", "a", expected="a", least_score="x")[0]
    assert said("inspect:mine.py:at_the_start", "42 it is", expected="42")[0] == "pass"
    assert said("inspect:mine.py:at_the_start", "it is 42", expected="42")[0] == "fail"
    assert said("inspect:mine.py:polite", "please", expected="x") == (
        "pass",
        "inspect:mine.py:polite gives True, required ≥ 1: What is it?",
    )
    assert said("inspect:mine.py:broken", "please", expected="x")[0] == "unscored"
    for name in ("inspect:nothing", "inspect:mine.py:nothing", "inspect:pattern"):
        with pytest.raises(UsageError):
            Checks(tmp_path).named(name)


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("yes", {"contains": "yes", "pattern": "y"}, "pass"),
        ("yes", {"contains": "yes", "pattern": "n"}, "pass"),
        ("yes", {"contains": "no", "pattern": "y"}, "fail"),
        ("yes", {"pattern": "y"}, "unscored"),
        ("", {"pattern": "y"}, "fail"),
    ],
)
def test_weights(text: str, data: dict[str, str], expected: str) -> None:
    """0.2 + 0.6 + 0.2, at least 0.8: unscored checks count as open only if they could change the outcome."""
    rule = CheckRule(checks=[], weights={"answered": 0.2, "contains": 0.6, "regex": 0.2}, pass_at=0.8)
    made = judge(Answer(text, "stop", data, FAST), rule, Checks(Path()))
    assert (made.check, made.finding.outcome) == ("weights", expected)


def _judging(likes: str) -> Callable[[Asked], Reply]:
    """A judge that prefers answers containing `likes`; with `likes` "first", it always prefers the first."""

    def reply(asked: Asked) -> Reply:
        _, one, two, _ = re.split(
            "===== (?:first answer|second answer|end) [0-9a-f]{32} =====", asked.json["messages"][1]["content"]
        )
        if likes == "first":
            said = "1"
        elif likes == "nonsense":
            said = "I would rather not."
        else:
            said = "same" if (likes in one) == (likes in two) else "1" if likes in one else "Answer 2."
        status = 200 if asked.headers.get("authorization") == "Bearer sesame" else 401
        return json_reply({"choices": [{"message": {"content": said}}]}, status)

    return reply


@pytest.mark.parametrize(
    ("likes", "text", "expected", "why"),
    [
        ("good", "good", "pass", JudgeSays("m", "1", "2")),
        ("good", "bad", "fail", JudgeSays("m", "2", "1")),
        ("else", "bad", "pass", JudgeSays("m", "same", "same")),
        ("first", "good", "unscored", JudgeContradicts("m", "1", "1")),
        ("nonsense", "good", "unscored", JudgeUnusable("m", "ValueError: it replied 'I would rather not.'")),
    ],
)
def test_a_judge_is_asked_in_both_orders(
    likes: str, text: str, expected: str, why: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE", "sesame")
    with fake_http(_judging(likes)) as server:
        config = JudgeConfig(url=f"{server.url}/", model="m", key_env="JUDGE")
        reference = "so so" if text == "good" else "good"
        finding = Checks(Path(), config).named("judge")(Answer(text, "stop", {}, FAST, (), reference, (), "Do it."))
        assert (finding.outcome, finding.reason) == (expected, why)
        answer = Answer(text, "stop", {"contains": "nothing"}, FAST, (), reference, (), "Do it.")
        made = judge(answer, CheckRule(checks=["contains", "judge", "answered"]), Checks(Path(), config))
        assert (made.check, made.finding.outcome) == ("contains", "fail"), "the first that does not pass decides"
        assert made.outcomes["judge"] == expected, "the judge is asked anyway, to be compared with the other check"
        monkeypatch.delenv("JUDGE")
        refused = Checks(Path(), config).named("judge")(Answer(text, "stop", {}, FAST, (), reference, (), "Do it."))
        assert refused.outcome == "unscored" and "401" in refused.why()
    gone = Checks(Path(), config).named("judge")(Answer(text, "stop", {}, FAST, (), reference, (), "Do it."))
    assert gone.outcome == "unscored" and isinstance(gone.reason, JudgeUnusable)
    with pytest.raises(UsageError, match="needs a model"):
        Checks(Path()).named("judge")


def test_a_busy_judge_is_retried_and_one_that_stays_busy_leaves_answers_unscored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE", "sesame")
    busy = Reply("slow down", 429, {"Retry-After": "0"})
    answer = Answer("good", "stop", {}, FAST, (), "bad", (), "Do it.")
    with fake_http(_judging("good"), [busy, Reply(status=503)]) as server:
        check = Checks(Path(), JudgeConfig(url=server.url, model="m", key_env="JUDGE")).named("judge")
        assert check(answer).outcome == "pass" and len(server.asked) == 4
        server.first[:] = [busy] * 3
        found = check(answer)
        assert found.outcome == "unscored" and "429" in found.why() and len(server.asked) == 7
