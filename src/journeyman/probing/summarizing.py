"""From scores to what is known about each role: rates, comparisons, the prediction and the advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.manifests import Rules
from journeyman.probing.recommending import COPY, Evidence, Tuned, recommend
from journeyman.probing.record import Part, ProbedRole
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, TEACHER, Example, Score
from journeyman.scoring.summary import Results
from journeyman.stats.describe import median
from journeyman.stats.learning_curve import LearningCurve, learning_curve


def rows_by_role(rows: Sequence[Example]) -> dict[str, int]:
    """'all' and each role → its rows."""
    return {EVERY_ROLE: len(rows), **dict(sorted(Counter(row.role for row in rows).items()))}


def summarized(
    asked: Sequence[Example],
    train: Sequence[Example],
    scores: Sequence[Score],
    parts: Sequence[Part],
    rules: Rules,
    similarity: Mapping[str, float],
) -> dict[str, ProbedRole]:
    """'all' and each role that was asked → what was found. The only role of a log is not repeated.

    Args:
        scores: of every arm.
        similarity: row that was asked → how similar the task is whose answer was copied.
    """
    there = {score.arm for score in scores}
    arms = [arm for arm in (TEACHER, COPY, BASE, FEW_SHOT, *(one.arm for one in parts)) if arm in there]
    groups = {row.id: row.group for row in asked}
    results = Results(groups, arms, arms, [], [], scores)
    trained, roles = rows_by_role(train), sorted({row.role for row in asked})
    found = {}
    for role in [EVERY_ROLE, *(roles if len(roles) > 1 else [])]:
        confidence = rules.confidence if role == EVERY_ROLE else rules.role_confidence
        mine = [one for one in scores if role in (EVERY_ROLE, one.role)]
        answered = {one.arm for one in mine}  # an adapter of other roles does not answer
        alike = [similarity[one.id] for one in mine if one.arm == COPY and one.outcome == "pass"]
        evidence = Evidence(
            results.summary(role, confidence),
            [Tuned(one.arm, one.rows.get(role, 0), _loss(one, role)) for one in parts if one.arm in answered],
            _curve(mine, parts, role, groups),
            trained.get(role, 0),
            rules.min_success,
            confidence,
            median(alike),
        )
        found[role] = ProbedRole(
            summary=evidence.summary,
            train_rows=evidence.train_rows,
            confidence=confidence,
            similarity=evidence.similarity,
            predicted=evidence.predicted,
            recommendation=recommend(evidence),
        )
    return found


def _curve(
    scores: Sequence[Score], parts: Sequence[Part], role: str, groups: Mapping[str, str]
) -> LearningCurve | None:
    points = []
    for part in parts:
        outcomes = {
            one.id: one.outcome == "pass" for one in scores if one.arm == part.arm and one.outcome != "unscored"
        }
        if part.rows.get(role, 0) and outcomes:
            points.append((part.rows[role], outcomes))
    return learning_curve(points, groups)


def _loss(part: Part, role: str) -> float | None:
    return part.losses.get(role, part.losses.get(EVERY_ROLE))
