"""Lengths of rows: what is dropped or cut, what cannot be served, and how much of the tokens is learned from."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found, by_role
from journeyman.lints.facts import Facts
from journeyman.reasons.lints import AnswersOverLimit, FewLabels, OverServedContext, RowsTooLong
from journeyman.reasons.planning import OverContext

_FEW_LABELS = 0.05
"""Twenty tokens are computed for one that is learned; shorter prompts then save more time than anything else."""


def rows_too_long(facts: Facts) -> Iterator[Found]:
    """Rows that are longer than curate.max_length, by role."""
    limits, long = facts.limits, {role: one.too_long for role, one in facts.roles.items() if one.too_long}
    if limits is None or not long:
        return
    kept = sum(one.train + one.val + (one.test or 0) for one in facts.roles.values())
    rows = sum(long.values())
    of = kept if limits.cuts_rows else kept + rows
    yield Found(RowsTooLong(rows, of, limits.max_length, by_role(long), limits.cuts_rows))


def context(facts: Facts) -> Iterator[Found]:
    """Rows that are longer than what the base was made for, or than what a request may have."""
    limits, sizes = facts.limits, facts.base.sizes
    if limits is None:
        return
    if sizes is not None and limits.longest_row > sizes.context:
        yield Found(OverContext(limits.longest_row, sizes.context))
    if limits.longest_row > limits.served_context:
        yield Found(OverServedContext(limits.longest_row, limits.served_context))


def answers(facts: Facts) -> Iterator[Found]:
    """Answers that are longer than what the model may write."""
    over = {role: one.over_limit for role, one in facts.roles.items() if one.over_limit}
    if facts.limits is not None and over:
        longest = max(one.longest_answer for one in facts.roles.values())
        limit, rows = facts.limits.max_new_tokens, sum(over.values())
        yield Found(AnswersOverLimit(rows, facts.train_rows, limit, longest, by_role(over)))


def labels(facts: Facts) -> Iterator[Found]:
    """Roles whose rows are nearly all prompt."""
    shares = {
        role: one.answer_tokens / (one.prompt_tokens + one.answer_tokens)
        for role, one in facts.roles.items()
        if one.answer_tokens
    }
    few = {role: f"{share:.1%}" for role, share in shares.items() if share < _FEW_LABELS}
    if few:
        of = [one for role, one in facts.roles.items() if role in few]
        labels, prompts = sum(one.answer_tokens for one in of), sum(one.prompt_tokens for one in of)
        yield Found(FewLabels(labels / (labels + prompts), _FEW_LABELS, by_role(few)))
