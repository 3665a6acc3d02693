"""The effective batch, against the number of training rows."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.lints import BatchOverRows

_STEPS_PER_EPOCH = 8


def batch(facts: Facts) -> Iterator[Found]:
    """A batch of more rows than there are."""
    size = facts.recipe.rows_per_step
    for adapter, run in facts.runs.items():
        if 0 < run.rows < size:
            yield Found(BatchOverRows(size, run.rows, max(1, run.rows // _STEPS_PER_EPOCH), adapter))
