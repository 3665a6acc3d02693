"""The page and the comparison with the evaluation, from a record made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from journeyman.manifests import CheckRule, EvaluationManifest, Rate, Rules
from journeyman.probing.comparing import predicted_and_found
from journeyman.probing.page import page_of
from journeyman.probing.record import Part, ProbeRecord
from journeyman.probing.summarizing import summarized
from journeyman.reasons.probing import PartLeftOut
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, Example, Message, Score

RULES = Rules(
    max_mean_latency_s=9, min_success=0.8, max_memory_gb=9, stretch_mean_latency_s=9, stretch_success=0.95,
    confidence=0.95, role_confidence=0.975, margin=None, regression_margin=0.1, files=[],
    checks={"a": CheckRule(checks=[])},
)  # fmt: skip


def _rows(role: str, count: int) -> list[Example]:
    turns = [Message(role="user", content="x")]
    return [
        Example(
            id=f"{role}{n}", role=role, messages=turns, answer="y", group=f"{role}{n}", prompt_tokens=1, answer_tokens=1
        )
        for n in range(count)
    ]


def _scores(arm: str, passed: dict[str, int], asked: list[Example]) -> list[Score]:
    return [
        Score(
            id=row.id,
            role=row.role,
            arm=arm,
            outcome="pass" if int(row.id[1:]) < passed[row.role] else "fail",
            check="c",
        )
        for row in asked
        if row.role in passed
    ]


def _record() -> ProbeRecord:
    asked, train = [*_rows("a", 60), *_rows("b", 40)], [*_rows("a", 300), *_rows("b", 100)]
    parts = [
        Part(name=name, arm=f"tuned@{name}", rows={EVERY_ROLE: a + b, "a": a, "b": b}, losses={}, steps=5, train_s=2.0)
        for name, a, b in (("eighth", 37, 13), ("quarter", 75, 25))
    ]
    scores = [
        *_scores(BASE, {"a": 0, "b": 39}, asked), *_scores(FEW_SHOT, {"b": 40}, asked),
        *_scores("tuned@eighth", {"a": 10, "b": 39}, asked), *_scores("tuned@quarter", {"a": 25, "b": 39}, asked),
    ]  # fmt: skip
    return ProbeRecord(
        created="2026-01-01T00:00:00", inputs={}, threshold=0.8, budget_s=60, shown={"b": 2}, parts=parts,
        left_out=[PartLeftOut("half", 200, 70.0, 60.0).record()], rows=100, of_rows=120, seconds=9.0,
        roles=summarized(asked, train, scores, parts, RULES, {}),
    )  # fmt: skip


def test_each_role_gets_its_own_advice_and_examples_of_one_role_do_not_speak_for_all() -> None:
    record = _record()
    assert list(record.roles) == [EVERY_ROLE, "a", "b"]
    assert record.roles["b"].recommendation.advice == "prompt"
    assert record.roles["a"].recommendation.advice != "prompt"
    assert (
        record.roles[EVERY_ROLE].recommendation.advice != "prompt"
    )  # few-shot passes all rows of b, and answered only those
    assert record.roles["a"].confidence == 0.975 and record.roles[EVERY_ROLE].confidence == 0.95


def test_the_page_says_what_was_found_what_was_left_out_and_by_which_rule() -> None:
    page = page_of(_record())
    for words in (
        "the base, with its bare prompt: 39 of 100 rows", "against the base", "half of the rows \\(200\\) was left out",
        "all 400 rows, predicted:", "of 120 validation rows, 100 were asked", "decide.min_success, 80%",
    ):  # fmt: skip
        assert words in page or words.replace("\\", "") in page, words
    assert "None" not in page and "nan" not in page


def test_text_of_a_log_does_not_act_on_the_page() -> None:
    record = _record()
    hostile = "<script>alert(1)</script>"
    page = page_of(record.model_copy(update={"roles": {**record.roles, hostile: record.roles["a"]}}))
    assert "<script>" not in page


@pytest.mark.parametrize(("low", "high", "consistent"), [(0.4, 0.6, True), (0.0, 0.01, False), (0.999, 1.0, False)])
def test_a_prediction_is_compared_with_what_was_found(low: float, high: float, consistent: bool) -> None:
    found: dict[str, Any] = {
        role: SimpleNamespace(tuned=SimpleNamespace(success=Rate(passed=5, n=10, low=low, high=high, effective_n=10)))
        for role in (EVERY_ROLE, "a")
    }
    compared = predicted_and_found(_record(), cast(EvaluationManifest, SimpleNamespace(roles=found)))
    assert list(compared) == [EVERY_ROLE, "a"] and compared[EVERY_ROLE].consistent is consistent
