"""Fills `Traffic` with a window, from what the assessor has judged or, without a student, from the rows themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from journeyman.gateway.feedback import Feedback, feedback_of
from journeyman.gateway.roles import FEEDBACK
from journeyman.gateway.row_files import numbers_of, row_files
from journeyman.monitoring.reading import (
    Reach,
    newest_conversations,
    newest_exchanges,
    newest_lines,
    newest_rows,
    seconds_of,
)
from journeyman.monitoring.traffic import Traffic
from journeyman.routing.assessing import CONVERSATIONS, EXCHANGES, FEEDBACKS
from journeyman.routing.exchanges import Exchange, exchange_of
from journeyman.routing.judging import UNSCORED, Judge, Judged
from journeyman.sources.fields import mapping

MOST_LINES = 200_000
MOST_ROW_BYTES = 1 << 28
_MOST_FEEDBACK = 100_000


class _NoJudge(Judge):
    """Applies no checks: these may run programs, which a look does not."""

    def __init__(self) -> None:
        pass

    def judged(self, row: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> Judged:
        return UNSCORED

    def decides(self, role: str) -> bool:
        return False


def count_exchanges(
    folder: Path,
    since: float,
    until: float,
    trained_at: float | None,
    judged: Callable[[str], bool],
    most: int = MOST_LINES,
) -> tuple[Traffic, Reach]:
    """Counts judged exchanges.

    Args:
        folder: the assessor's.
        judged: see Traffic.
        trained_at: since when rows are newer than the training data; None: in the window.
        most: lines that are read.
    """
    traffic, reach = Traffic(judged), Reach()
    begin = since if trained_at is None else min(since, trained_at)
    for one in newest_exchanges(folder / EXCHANGES, begin, until, most, reach):
        at = seconds_of(one.at) or since
        if at >= since:
            traffic.take(one)
        if at >= (since if trained_at is None else trained_at):
            traffic.count_failed(one)
    reach.complete = reach.complete or (reach.oldest is not None and reach.oldest < since)
    _count_conversations(traffic, folder, since, until)
    for said, number in _feedback(folder / FEEDBACKS, since):
        traffic.hear(said, number)
    traffic.settle()
    return traffic, reach


def count_rows(
    rows: Path,
    folder: Path,
    since: float,
    until: float,
    most_s: float | None,
    also: Callable[[Mapping[str, Any]], None],
    most_bytes: int = MOST_ROW_BYTES,
) -> tuple[Traffic, Reach]:
    """Counts rows that nobody has judged.

    Args:
        rows: the recorder's folder.
        folder: the assessor's, if there was one.
        most_s: route.most_s.
        also: gets each row, too.
        most_bytes: see newest_rows.
    """
    traffic, reach, judge = Traffic(lambda role: False), Reach(), _NoJudge()
    for row, _ in newest_rows(rows, since, until, most_bytes, reach):
        number, request = row.get("seq"), mapping(row.get("request"))
        if not isinstance(number, int):
            continue
        if row.get("path") == FEEDBACK:
            if said := feedback_of(request, str(row.get("conversation") or "")):
                traffic.hear(said, number)
        elif {"messages", "input", "prompt"} & request.keys():
            try:
                one = exchange_of(row, judge, most_s, delivered=True)
            except (TypeError, ValueError):  # a row of another version, or changed by hand
                reach.unreadable += 1
                continue
            traffic.take(one)
            traffic.count_failed(one)
            also(row)
    _count_conversations(traffic, folder, since, until)
    traffic.settle()
    return traffic, reach


def waiting(rows: Path, folder: Path) -> int:
    """How many rows the assessor has not judged yet, about; 0 if that cannot be seen."""
    files = row_files(rows)
    newest = next((numbers_of(line) for line in newest_lines(files[-1])), None) if files else None
    if newest is None:
        return 0
    judged = 0
    for count, line in enumerate(newest_lines(folder / EXCHANGES)):
        try:
            one = Exchange.model_validate_json(line)
        except ValidationError:
            continue
        if one.of is None:
            judged = max(judged, one.seq)
        if count >= 100:
            break
    return max(0, newest[0] - judged) if judged else 0


def _count_conversations(traffic: Traffic, folder: Path, since: float, until: float) -> None:
    for one in newest_conversations(folder / CONVERSATIONS, since, until, MOST_LINES, Reach()):
        traffic.over(one)


_FEEDBACK = TypeAdapter(Feedback)


def _feedback(path: Path, since: float) -> list[tuple[Feedback, int]]:
    """What the assessor has written down, with the numbers of the rows."""
    found: list[tuple[Feedback, int]] = []
    for line in newest_lines(path):
        try:
            told = mapping(json.loads(line))
            at, number = seconds_of(told.pop("at", None)), told.pop("seq", 0)
            told.pop("in_time", None)
            said = _FEEDBACK.validate_python(told)
        except (ValueError, RecursionError):
            continue
        if (at is not None and at < since) or len(found) >= _MOST_FEEDBACK:
            break
        found.append((said, int(number)))
    return found
