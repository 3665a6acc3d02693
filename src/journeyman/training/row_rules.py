"""Which training rows are trained on, and with which weights: [train.rows]. Other rows are never affected."""

from __future__ import annotations

from collections.abc import Iterable

from journeyman.config import TrainRowsConfig
from journeyman.records import Example


def trained_rows(rows: Iterable[Example], config: TrainRowsConfig) -> list[Example]:
    """The rows that training uses, in order."""
    kept = [row for row in rows if row.ends or config.cut_answers == "keep"]
    return kept if config.weights == "curated" else [row.model_copy(update={"weight": 1.0}) for row in kept]
