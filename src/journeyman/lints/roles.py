"""Roles with too few rows to learn from, or too few to judge."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.dataset import FewTrainingRows
from journeyman.reasons.lints import CannotTell
from journeyman.reasons.planning import RoleWithoutRows, TooFewTestRows
from journeyman.records import EVERY_ROLE
from journeyman.stats.power import POWER, failing_power, rows_to_refute
from journeyman.stats.rates import rows_needed, wilson

FEW_ROWS = 50
"""OpenAI's fine-tuning guide sees clear gains from 50 to 100 examples."""
_LEAST_GAP = 0.05


def names(facts: Facts) -> Iterator[Found]:
    """Sections of the config for roles that no row has."""
    known = ", ".join(sorted(facts.roles))
    for role in sorted(set(facts.other_roles) - set(facts.roles)):
        yield Found(RoleWithoutRows(role, known))


def too_few_to_train(facts: Facts) -> Iterator[Found]:
    for role, one in facts.roles.items():
        if one.train < FEW_ROWS:
            yield Found(FewTrainingRows(role, one.train, FEW_ROWS))


def too_few_to_judge(facts: Facts) -> Iterator[Found]:
    """Roles whose test rows cannot prove the success that the rule requires, even if all pass."""
    judging = facts.judging
    if judging is None:
        return
    judged = dict(facts.roles) if facts.held_out is None else {EVERY_ROLE: facts.held_out}
    for role, one in judged.items():
        if one.test is None:
            continue
        rows = one.effective_test
        if not rows or wilson(rows, rows, judging.role_confidence)[0] < judging.min_success:
            needed = rows_needed(1.0, judging.min_success, judging.role_confidence)
            yield Found(TooFewTestRows(role, one.test, rows, judging.min_success, needed))


def cannot_tell(facts: Facts) -> Iterator[Found]:
    """All test rows together cannot tell a good model from one that fails twice as often as the rule allows."""
    judging = facts.judging
    rows = round(facts.effective_test_rows)
    if judging is None or not rows:
        return
    least = judging.min_success
    lower = max(0.0, least - max(_LEAST_GAP, 1 - least))
    chance = failing_power(rows, lower, least, judging.confidence)
    if chance < POWER:
        yield Found(CannotTell(rows, least, lower, chance, rows_to_refute(lower, least, judging.confidence)))
