"""The figures of an evaluation as one row for each role and arm."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from journeyman.manifests import EvaluationManifest
from journeyman.records import Record


class SummaryRow(Record):
    """One arm's result in one role. A figure that is not known is None."""

    role: str = Field(description="'all' pools the roles")
    arm: str
    passed: int | None
    n: int | None = Field(description="answers that could be scored")
    success: float | None
    low: float | None = Field(description="lower end of the success rate's interval")
    high: float | None
    unscored: int
    mean_s: float | None = Field(description="seconds an answer takes, one request at a time")
    p95_s: float | None


def summary_rows(evaluation: EvaluationManifest) -> Iterator[SummaryRow]:
    """In the order of the evaluation's tables."""
    for role, found in evaluation.roles.items():
        for arm, one in found.arms.items():
            rate, speed = one.success, one.speed
            yield SummaryRow(
                role=role,
                arm=arm,
                passed=rate and rate.passed,
                n=rate and rate.n,
                success=rate.passed / rate.n if rate and rate.n else None,
                low=rate and rate.low,
                high=rate and rate.high,
                unscored=one.unscored,
                mean_s=speed and speed.mean_s,
                p95_s=speed and speed.p95_s,
            )
