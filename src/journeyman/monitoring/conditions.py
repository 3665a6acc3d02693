"""What there could be an alert about, as one look sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from journeyman.config import AlertKind, MonitorConfig
from journeyman.monitoring.report import Recorder, Report, RoleReport, RouteChange
from journeyman.monitoring.retraining import drift_reason, fallback_reason
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import (
    DriftFound,
    FallbacksAbove,
    Promoted,
    RecorderSilent,
    RecorderStopped,
    RecorderTrouble,
    RolledBack,
    SuccessBelow,
    TrainAgain,
)
from journeyman.routing.modes import WITH_STUDENT


@dataclass(frozen=True)
class Condition:
    """Something that lasts.

    Attributes:
        role: "": it concerns no role.
        state: unknown leaves an alert as it is: it is neither raised nor resolved.
        reason: if present.
        codes: of what it is made of; the alert is raised again if one is new.
        unknown: codes of which nobody can say now whether they hold.
        drift_at: time of the look for drift that this comes from, in ISO 8601.
    """

    kind: AlertKind
    role: str
    state: Literal["present", "absent", "unknown"]
    reason: Reason | None = None
    codes: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    drift_at: str = ""


def conditions_of(report: Report, config: MonitorConfig) -> Iterator[Condition]:
    """All conditions of the kinds in monitor.alerts."""
    found = [_recording(report.recorder)]
    for role in report.roles:
        found.append(_fallbacks(role, config.fallback_share))
        found.append(_drift(role, report.drift_at))
        found.append(_train_again(role, config.fallback_share, report.drift_at))
    return (one for one in found if one.kind in config.alerts)


def change_kind(change: RouteChange) -> tuple[AlertKind, Reason]:
    """What a change of a route that the statistics made is told as."""
    made: tuple[AlertKind, Callable[[str, str, str], Reason]]
    made = ("promoted", Promoted) if change.action == "promote" else ("rolled_back", RolledBack)
    return made[0], made[1](change.before, change.mode, change.why)


def _recording(recorder: Recorder) -> Condition:
    reason: Reason
    match recorder.state:
        case "recording":
            return Condition("not_recording", "", "absent")
        case "unknown":
            return Condition("not_recording", "", "unknown")
        case "trouble":
            reason = RecorderTrouble(recorder.trouble)
        case "silent":
            reason = RecorderSilent(recorder.address)
        case "stopped":
            reason = RecorderStopped()
    return Condition("not_recording", "", "present", reason)


def _fallbacks(role: RoleReport, limit: float) -> Condition:
    """Between the limit and where the whole interval is above it, an alert stays as it is."""
    reason = fallback_reason(role.fallbacks, role.fallback_reasons, limit)
    if reason is not None:
        return Condition("fallback_share", role.role, "present", reason)
    below = role.fallbacks is not None and role.fallbacks.share <= limit
    return Condition("fallback_share", role.role, "absent" if below else "unknown")


def _drift(role: RoleReport, at: str) -> Condition:
    reason = drift_reason(role.drift)
    if reason is not None:
        return Condition("drift", role.role, "present", reason, frozenset([DriftFound.code]), drift_at=at)
    known = role.drift is not None and role.drift.unknown is None
    return Condition("drift", role.role, "absent" if known else "unknown", drift_at=at)


def _train_again(role: RoleReport, limit: float, at: str) -> Condition:
    if not role.train_again:
        return Condition("train_again", role.role, "absent", unknown=_not_known(role, limit), drift_at=at)
    codes = [one.code for one in role.train_again]
    return Condition(
        "train_again", role.role, "present", TrainAgain(", ".join(codes)), frozenset(codes), drift_at=at
    )  # fmt: skip


def _not_known(role: RoleReport, limit: float) -> frozenset[str]:
    """The reasons to train again that are not given, and may hold nevertheless."""
    shadow_counts = role.mode not in WITH_STUDENT and role.shadow.success is not None
    unknown = {
        DriftFound.code: _drift(role, "").state == "unknown",
        SuccessBelow.code: role.student.success is None and not shadow_counts,
        FallbacksAbove.code: _fallbacks(role, limit).state == "unknown",
    }
    return frozenset(code for code, holds in unknown.items() if holds)
