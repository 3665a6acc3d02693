"""What the held-out rows can show about each rule of the decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from journeyman.manifests import RulePower, Rules, SplitCounts
from journeyman.records import EVERY_ROLE
from journeyman.stats.power import (
    largest_rate_refuted,
    least_loss_vetoed,
    least_margin_shown,
    least_rate_shown,
    rows_to_show,
)


def power_rate(rules: Rules) -> float:
    """The true success of a good model, for which the power is stated: halfway from the threshold to perfect."""
    return (1 + rules.min_success) / 2


def share_that_differs(rules: Rules) -> float:
    """The share of rows on which a good model and the teacher may come to different results, for which the power of
    their comparison is stated: each fails as often as the rule allows."""
    return min(0.5, 2 * (1 - rules.min_success))


def rule_powers(rules: Rules, splits: Mapping[str, SplitCounts], suite: Mapping[str, int]) -> list[RulePower]:
    """The power of each rule that counts rows, by role. Latency and memory are measured, not counted.

    Args:
        suite: part of the regression suite → its questions.
    """
    rows = {role: split.effective_test for role, split in splits.items()}
    if len(rows) > 1:
        rows = {EVERY_ROLE: sum(rows.values()), **rows}
    return [*_of_success(rules, rows), *_of_teacher(rules, rows), *_of_regressions(rules, suite)]


def _of_success(rules: Rules, rows: Mapping[str, float]) -> Iterator[RulePower]:
    needed = rows_to_show(power_rate(rules), rules.min_success, rules.role_confidence)
    for role, count in rows.items():
        of = (round(count), rules.min_success, rules.role_confidence)
        yield RulePower(
            rule="success", of=role, rows=count, shown=least_rate_shown(*of), refuted=largest_rate_refuted(*of),
            rows_needed=needed,
        )  # fmt: skip


def _of_teacher(rules: Rules, rows: Mapping[str, float]) -> Iterator[RulePower]:
    if rules.margin is None:
        return
    for role, count in rows.items():
        shown = least_margin_shown(round(count), share_that_differs(rules), rules.role_confidence)
        yield RulePower(rule="teacher", of=role, rows=count, shown=shown)


def _of_regressions(rules: Rules, suite: Mapping[str, int]) -> Iterator[RulePower]:
    for part, questions in suite.items():
        lost = least_loss_vetoed(questions, rules.regression_margin, rules.confidence)
        yield RulePower(rule="regression", of=part, rows=questions, shown=lost)
