"""When to train again: rules whose thresholds stand in [monitor], each with its figures."""

from __future__ import annotations

from journeyman.config import MonitorConfig
from journeyman.monitoring.report import Answers, Drift, Share
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import DriftFound, FallbacksAbove, StudentFailed, SuccessBelow


def drift_reason(drift: Drift | None) -> DriftFound | None:
    """What drift was found."""
    found = [] if drift is None else [one for one in drift.tests if one.found]
    if drift is None or not found:
        return None
    surest = min(found, key=lambda one: one.p_value)
    names = ", ".join(one.test for one in found)
    return DriftFound(names, surest.test, surest.p_value, surest.effect, drift.recorded)


def fallback_reason(fallbacks: Share | None, reasons: dict[str, int], limit: float) -> FallbacksAbove | None:
    """Too many fallbacks: the whole interval is above the limit."""
    if fallbacks is None or fallbacks.low <= limit:
        return None
    top = next(iter(reasons), "")
    return FallbacksAbove(fallbacks.share, fallbacks.low, fallbacks.high, fallbacks.of, limit, top)


def success_reason(student: Answers, promised: float | None) -> SuccessBelow | None:
    """Too little success: the whole interval is below what was promised."""
    seen = student.success
    if seen is None or promised is None or seen.high >= promised:
        return None
    return SuccessBelow(seen.share, seen.low, seen.high, seen.of, seen.unit, promised)


def reasons_to_train(
    config: MonitorConfig,
    drift: Drift | None,
    student: Answers,
    promised: float | None,
    failed_rows: int,
    fallbacks: Share | None,
    fallback_reasons: dict[str, int],
) -> list[Reason]:
    """All that speaks for it."""
    failed = StudentFailed(failed_rows, config.failed_rows) if failed_rows >= config.failed_rows else None
    found = (
        drift_reason(drift),
        success_reason(student, promised),
        failed,
        fallback_reason(fallbacks, fallback_reasons, config.fallback_share),
    )
    return [one for one in found if one is not None]
