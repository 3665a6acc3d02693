"""The rows of a rung.

Only the last rung is scored on validation rows. Trials on a part of the training rows are scored on others of them,
which they were not trained on, so that the rows that decide at the end have not chosen the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.records import Example
from journeyman.search.choosing import RowsScored
from journeyman.search.halving import Rung
from journeyman.trials.rows import TrialRows

EARLY_ROWS = 40
"""Rows on which trials of early rungs are scored. They only have to be ranked there, and answers often cost more than
training on a part of the rows."""


def rows_at(rows: TrialRows, share: float, seed: int) -> TrialRows:
    """A share of the training rows, and what a trial on them is scored on: never a row of a trained group."""
    if share >= 1:
        return rows
    part = rows.part(share, seed)
    groups = {row.group for row in part.train}
    others = [row for row in rows.train if row.group not in groups]
    return TrialRows(part.train, TrialRows(others, []).part(EARLY_ROWS / max(1, len(others)), seed).train)


def rung_of(rows: TrialRows, share: float) -> Rung:
    """The sizes of a rung with these rows."""
    tokens = sum(row.prompt_tokens + row.answer_tokens for row in rows.train)
    return Rung(share, len(rows.train), tokens, len(rows.val))


def scored_rows(rows: Sequence[Example]) -> RowsScored:
    return RowsScored({row.id: row.group for row in rows}, {row.id: row.role for row in rows})
