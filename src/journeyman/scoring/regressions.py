"""Scores the regression suite: the adapter compared with the base on each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.manifests import CheckRule, RegressionResult
from journeyman.reasons import Reason
from journeyman.records import Prediction, RegressionAnswer
from journeyman.regression_suite import SuiteQuestion, SuiteRun
from journeyman.scoring.answered import ENDINGS
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits
from journeyman.stats.groups import one_sided_mcnemar


def regression_answers(adapter: str, kind: str, run: SuiteRun) -> list[RegressionAnswer]:
    """Each question with both answers and their scores."""
    return [
        RegressionAnswer(
            adapter=adapter, part=kind, id=question.id, task=question.task, base=base.text, tuned=tuned.text,
            base_passes=_passes(question, base), tuned_passes=_passes(question, tuned),
            base_ends=base.finish_reason in ENDINGS, tuned_ends=tuned.finish_reason in ENDINGS,
        )
        for question, base, tuned in zip(run.questions, run.base, run.tuned, strict=True)
    ]  # fmt: skip


def regression_results(
    runs: Mapping[str, SuiteRun], answers: Sequence[RegressionAnswer]
) -> dict[str, RegressionResult]:
    """One adapter's results for each part of the suite, and for whether it still ends its answers."""
    results = {}
    for kind, run in runs.items():
        mine = [one for one in answers if one.part == kind]
        results[kind] = compared([(one.base_passes, one.tuned_passes) for one in mine], run.note)
    results["stopping"] = compared([(one.base_ends, one.tuned_ends) for one in answers])
    return results


def compared(pairs: Sequence[tuple[bool, bool]], note: Reason | None = None) -> RegressionResult:
    """The result for (base passes, tuned passes) of each question."""
    wins, losses = sum(t and not b for b, t in pairs), sum(b and not t for b, t in pairs)
    return RegressionResult(
        n=len(pairs),
        base=sum(b for b, _ in pairs),
        tuned=sum(t for _, t in pairs),
        wins=wins,
        losses=losses,
        p_value=one_sided_mcnemar(wins, losses),
        note=None if note is None else note.record(),
    )


def _passes(question: SuiteQuestion, said: Prediction) -> bool:
    answer = Answer(said.text, said.finish_reason, question.check, Limits(), said.calls, task=question.task)
    return judge(answer, CheckRule(checks=question.checks), Checks(Path())).finding.outcome == "pass"
