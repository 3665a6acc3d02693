"""Every check with random and hostile rows and answers: it never raises, it ends, and it returns one of three outcomes.

`make fuzz` tries forty times as many.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.foreign import plain
from journeyman.manifests import CheckRule
from journeyman.records import Score, ToolCall
from journeyman.scoring import apart
from journeyman.scoring.bounded import Bounds
from journeyman.scoring.checks import RUNS_CODE, Checks, check_table, judge
from journeyman.scoring.contracts import Answer, Judgement, Limits
from journeyman.scoring.row_data import KEYS

FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))
OUTCOMES = {"pass", "fail", "unscored"}
FAST = Limits(wall_s=5.0, cpu_s=1)
SHORT = Bounds(cpu_s=1.0)

SIGNS = st.text(st.characters(codec=None, exclude_categories=[]), max_size=30)
HOSTILE = st.sampled_from(
    [
        "", "\0", "\ud800", "\x1b[2J", "```", "```diff\n", "```python\n", "(a+)+$", "(" * 200, "[" * 2_000,
        "{" * 2_000, "]", "NaN", "1e999", "-" * 5_000, "a" * 50 + "b", "#", "http://127.0.0.1:9/",
        "file:///etc/passwd", ".git/config", "../x", "/etc/passwd", "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n",
        "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+b\n", "diff --git a/f b/f\n", "rename from f\nrename to g\n",
        "@@ -1 +1 @@\n", "\\ No newline at end of file\n", "GIT binary patch\n", "<|im_end|>",
        "def test_a():\n assert f() == 1\n", "import os; os._exit(0)", "raise SystemExit(0)", "{\"a\": 1}",
        "[1, 2]", "true",
    ]
)  # fmt: skip
TEXT = st.one_of(SIGNS, HOSTILE, st.lists(HOSTILE, max_size=4).map("".join))
NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.just(10**400))
KEY = st.one_of(
    TEXT,
    st.sampled_from([
        "type", "$ref", "$id", "$schema", "$defs", "$anchor", "$dynamicRef", "$dynamicAnchor", "pattern",
        "patternProperties", "items", "prefixItems", "allOf", "anyOf", "oneOf", "not", "if", "then", "multipleOf",
        "enum", "const", "minimum", "maxLength", "required", "properties", "additionalProperties", "propertyNames",
        "unevaluatedProperties", "contains", "minContains", "format", "uniqueItems", "name", "arguments", "f", "g",
        "a/b", "a",
    ]),
)  # fmt: skip
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(TEXT, NUMBERS, st.sampled_from(["object", "array", "string", "#", "#/$defs/a", "#/properties/a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEY, inner, max_size=4)),
    max_leaves=12,
)
KEYS_OF = {name: sorted(keys) for name, keys in KEYS.items()}
LIKELY = {
    "files": st.dictionaries(st.one_of(TEXT, st.sampled_from(["f", "g", "a/b", "a"])), TEXT, max_size=4),
    "schema": st.dictionaries(KEY, VALUE, max_size=4),
    "calls": st.lists(st.fixed_dictionaries({"name": TEXT, "arguments": VALUE}), max_size=3),
    "wrong": st.lists(TEXT, max_size=2),
}


def data_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = KEYS_OF.get(name, ["expected"])
    return st.fixed_dictionaries({}, optional={key: st.one_of(LIKELY.get(key, TEXT), VALUE) for key in keys})


CALLS = st.lists(st.builds(ToolCall, name=TEXT, arguments=VALUE), max_size=3)
SLOW = settings(max_examples=50 * FUZZ, deadline=None, suppress_health_check=list(HealthCheck))
CODE = settings(SLOW, max_examples=5 * FUZZ)


@pytest.fixture(autouse=True, scope="module")
def short() -> Any:
    """One second of processor time is enough to distinguish checks that finish from those that do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "_TABLE", SHORT)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(check_table()))
def test_no_data_and_no_answer_ends_a_check(name: str) -> None:
    @(CODE if name in RUNS_CODE else SLOW)
    @given(
        data_of(name), TEXT, CALLS, st.one_of(st.none(), TEXT), CALLS, st.sampled_from(["stop", "length", "\x1b", ""])
    )
    def tried(
        data: dict[str, Any],
        text: str,
        calls: list[ToolCall],
        reference: str | None,
        of_teacher: list[ToolCall],
        why: str,
    ) -> None:
        answer = Answer(text, why, data, FAST, calls, reference, of_teacher, "task")
        made = judge(answer, CheckRule(checks=[name]), Checks(Path()))
        _holds(made)
        fault = apart.data_fault([name], data)
        assert fault is None or fault == plain(fault)
        if fault and made.finding.outcome == "pass":
            pytest.fail(f"passes, though {fault}: {data!r}")

    tried()


def _holds(made: Judgement) -> None:
    """The result can be stored and shown."""
    finding = made.finding
    assert finding.outcome in OUTCOMES and finding.why() == plain(finding.why())
    verdict = Score(
        id="r",
        role="a",
        arm="b",
        outcome=finding.outcome,
        check=made.check,
        reason=finding.reason and finding.reason.record(),
    )
    assert json.loads(verdict.model_dump_json())["outcome"] == finding.outcome


@SLOW
@given(st.dictionaries(KEY, VALUE, max_size=5), TEXT)
def test_no_schema_ends_an_evaluation(schema: dict[str, Any], text: str) -> None:
    answer = Answer(text, "stop", {"schema": schema}, FAST)
    _holds(judge(answer, CheckRule(checks=["json_schema"]), Checks(Path())))


@SLOW
@given(
    st.text(st.sampled_from("ab()[]{}*+?|\\^$.,:=!<>#-09PimsxLu"), max_size=40),
    st.sampled_from(["", "a" * 40 + "b", "ab\n" * 20]),
)
def test_no_pattern_ends_an_evaluation(pattern: str, text: str) -> None:
    _holds(judge(Answer(text, "stop", {"pattern": pattern}, FAST), CheckRule(checks=["regex"]), Checks(Path())))


@SLOW
@given(
    st.dictionaries(st.sampled_from(sorted(set(check_table()) - RUNS_CODE)), st.floats(0.1, 9), min_size=1), VALUE, TEXT
)
def test_no_weighed_row_ends_an_evaluation(weights: dict[str, float], value: Any, text: str) -> None:
    data = {key: value for keys in KEYS_OF.values() for key in keys}
    _holds(
        judge(Answer(text, "stop", data, FAST, reference="x"), CheckRule(checks=[], weights=weights), Checks(Path()))
    )
