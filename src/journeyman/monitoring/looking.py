"""One look at what was recorded. It reads files and writes none; the report says how far back it has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from journeyman.artifacts import read_model
from journeyman.config import Config
from journeyman.errors import InputError
from journeyman.gateway.row_files import row_files
from journeyman.monitoring.costs import saved_by
from journeyman.monitoring.counting import MOST_ROW_BYTES, count_exchanges, count_rows, waiting
from journeyman.monitoring.prompt_looks import PromptLook, PromptLooks, PromptWatcher, Trained
from journeyman.monitoring.reading import Reach, newest_rows
from journeyman.monitoring.recorded import MOST_ROLES, RecordedPrompts
from journeyman.monitoring.report import Recorder, Report, RoleReport, RouteChange, Source
from journeyman.monitoring.retraining import reasons_to_train
from journeyman.monitoring.traffic import RoleTraffic, Traffic, fallback_share
from journeyman.reasons import monitoring as why
from journeyman.reasons.base import Reason
from journeyman.routing.assessing import EXCHANGES
from journeyman.routing.canaries import SUMMARY, Summary
from journeyman.routing.modes import WITH_STUDENT, RouteRecord, record_of
from journeyman.serving.app import identity_of
from journeyman.sources.fields import mapping

_MOST_SHOWN, _MOST_CHANGES, _MANY_WAITING = 100, 200, 1_000
_BY_ITSELF = ("promote", "roll_back")


@dataclass(frozen=True)
class Inputs:
    """Where to look.

    Attributes:
        rows: the recorder's folder.
        routing: the assessor's.
        recorder: how the recorder is.
        notes: what could not be used.
    """

    rows: Path
    routing: Path
    trained: Trained
    recorder: Recorder
    notes: tuple[Reason, ...] = ()


@dataclass
class _Look:
    """A look in progress."""

    since: float
    now: float
    source: Source = "nothing"
    traffic: Traffic = field(default_factory=lambda: Traffic(lambda role: False))
    reach: Reach = field(default_factory=Reach)
    notes: list[Reason] = field(default_factory=list)


class Looker:
    """Looks again and again; drift, which takes longest, at most every monitor.drift_every_s.

    Args:
        hours: of the window.
        role: only this one; None: all.
    """

    def __init__(self, config: Config, hours: float, role: str | None = None) -> None:
        self._config, self._hours, self._role = config, hours, role
        self._watcher = PromptWatcher(config)
        self._prompts: PromptLooks | None = None

    def look(self, inputs: Inputs, now: float) -> Report:
        """Looks at the window that ends now.

        Args:
            now: seconds since 1970.
        """
        made = _Look(now - self._hours * 3600, now, notes=list(inputs.notes))
        self._count(made, inputs)
        routes = _routes(inputs.routing, made.notes)
        canaries = _canaries(inputs.routing, made.notes)
        bundle = inputs.trained.bundle
        if bundle is not None and {one.release for one in routes.roles.values()} - {"", identity_of(bundle)}:
            made.notes.append(why.ServesAnother())
        names = [name for name in _by_requests(made.traffic) if self._role in (None, name)]
        if len(names) > _MOST_SHOWN:
            made.notes.append(why.MoreRoles(len(names) - _MOST_SHOWN))
        roles = [
            self._role_report(name, made.traffic.roles[name], routes, canaries.get(name, {}))
            for name in names[:_MOST_SHOWN]
        ]
        changes = [
            RouteChange(
                number=one.number, at=one.at, role=one.role, action=one.action, before=one.before or "",
                mode=one.mode, why=one.why,
            )
            for one in routes.events
            if one.action in _BY_ITSELF
        ]  # fmt: skip
        return Report(
            at=_iso(now), since=_iso(made.since), source=made.source, read=made.reach.lines,
            complete=made.reach.complete, reaches="" if made.reach.oldest is None else _iso(made.reach.oldest),
            recorder=inputs.recorder, drift_at="" if self._prompts is None else _iso(self._prompts.at),
            roles=roles, changes=changes[-_MOST_CHANGES:],
            notes=[one.record() for one in made.notes],
        )  # fmt: skip

    def _count(self, made: _Look, inputs: Inputs) -> None:
        every, now = self._config.monitor.drift_every_s, made.now
        due = self._prompts is None or not 0 <= now - self._prompts.at < every
        sample, reach = self._watcher.sample(inputs.trained), Reach()
        since, notes = made.since, made.notes
        if self._config.route.student and (inputs.routing / EXCHANGES).exists():
            made.source = "exchanges"
            made.traffic, made.reach = count_exchanges(inputs.routing, since, now, inputs.trained.at, self._judged)
            if (rows := waiting(inputs.rows, inputs.routing)) >= _MANY_WAITING:
                notes.append(why.NotJudgedYet(rows))
            if due:
                reach = _sampled(sample, made, inputs)
        elif row_files(inputs.rows):
            made.source = "rows"
            made.traffic, made.reach = count_rows(
                inputs.rows, inputs.routing, since, now, self._config.route.most_s,
                sample.take if due else _nothing,
            )  # fmt: skip
            notes.append(why.NobodyJudges())
        if due:
            self._prompts = self._watcher.compare(sample, inputs.trained, inputs.rows, since, now)
            self._prompts.lost = reach.lost
            if not reach.complete:
                self._prompts.sampled = why.SampledBackTo(reach.lines, _iso(reach.oldest or now))
        if not made.traffic.roles:
            notes.append(why.NothingRecorded())
        if not made.reach.complete:
            notes.append(why.LimitReached(made.reach.lines, _iso(made.reach.oldest or now)))
        prompts = self._prompts
        if prompts is not None and prompts.sampled is not None:
            notes.append(prompts.sampled)
        if lost := made.reach.lost + (0 if prompts is None else prompts.lost):
            notes.append(why.RowsLost(lost))
        if made.reach.unreadable:
            notes.append(why.NotReadable(made.reach.unreadable))
        if prompts is not None and prompts.roles and prompts.older:
            notes.append(why.ComparedWithOlder())
        if prompts is not None and prompts.left_out:
            notes.append(why.RolesNotCompared(prompts.left_out, MOST_ROLES))

    def _judged(self, role: str) -> bool:
        """Whether a check or a credit rule says of every answer of a role how it went."""
        asked = self._config.role(role)
        checks = {*asked.checks, *asked.weights} - {"answered"}
        return bool(checks) or any(rule.role == role for rule in self._config.curate.credit)

    def _role_report(
        self, name: str, found: RoleTraffic, routes: RouteRecord, canary: Mapping[str, Any]
    ) -> RoleReport:  # fmt: skip
        monitor = self._config.monitor
        route = routes.roles.get(name)
        mode = ("teacher" if route is None else route.mode) if self._config.route.student else ""
        saved, saved_unknown = saved_by(found, monitor.teachers.get(name, ""), monitor.prices)
        prompts = self._prompts.roles.get(name) if self._prompts is not None else None
        teacher, student, shadow = found.teacher.made(), found.student.made(), found.shadow.made()
        fallbacks, fallback_reasons = fallback_share(found), dict(found.fallbacks.most_common())
        tested = student if student.success is not None or mode in WITH_STUDENT else shadow
        reasons = reasons_to_train(
            monitor, None if prompts is None else prompts.drift, tested, _promised(monitor.success, canary),
            found.failed_rows, fallbacks, fallback_reasons,
        )  # fmt: skip
        asked_student = bool(mode or found.to_student)
        known = any(one.success is not None for one in (teacher, student, shadow))
        nothing_decides = not known and found.requests and not found.teacher.judged
        return RoleReport(
            role=name, mode=mode, canary=str(canary.get("verdict") or ""), canary_why=str(canary.get("why") or ""),
            canary_figures=_numbers(canary.get("figures")),
            pairs={pair: int(count) for pair, count in _numbers(canary.get("pairs")).items()},
            requests=found.requests, by_student=student.requests if asked_student else None,
            cancelled=found.cancelled, wrong=found.wrong, teacher=teacher, student=student, shadow=shadow,
            success_unknown=why.NothingDecides().record() if nothing_decides else None,
            fallbacks=fallbacks, fallback_reasons=fallback_reasons, saved=saved,
            saved_unknown=None if saved_unknown is None else saved_unknown.record(),
            failed_rows=found.failed_rows, train_again=[one.record() for one in reasons], **_of_prompts(prompts),
        )  # fmt: skip


def _sampled(sample: RecordedPrompts, made: _Look, inputs: Inputs) -> Reach:
    reach = Reach()
    for row, _ in newest_rows(inputs.rows, made.since, made.now, MOST_ROW_BYTES, reach):
        sample.take(row)
    return reach


def _of_prompts(look: PromptLook | None) -> dict[str, Any]:
    if look is None:
        return {"prompts_unknown": why.NoPromptsRead().record()}
    return {"drift": look.drift, "prompts": look.prompts, "prompts_unknown": look.prompts_unknown}


def _numbers(figures: Any) -> dict[str, float]:
    return {name: value for name, value in mapping(figures).items() if isinstance(value, int | float)}


def _promised(asked: float | None, canary: Mapping[str, Any]) -> float | None:
    """The success that the student must have: as configured, else as its canary allowed."""
    most_failed = canary.get("most_failed")
    if asked is None and isinstance(most_failed, int | float):
        return 1.0 - float(most_failed)
    return asked


def _by_requests(traffic: Traffic) -> list[str]:
    return sorted(traffic.roles, key=lambda name: (-traffic.roles[name].requests, name))


def _routes(folder: Path, notes: list[Reason]) -> RouteRecord:
    try:
        return record_of(folder)
    except InputError as error:
        notes.append(why.FileNotUsable(error.what))
        return RouteRecord()


def _canaries(folder: Path, notes: list[Reason]) -> Mapping[str, Mapping[str, Any]]:
    if not (folder / SUMMARY).exists():
        return {}
    try:
        return read_model(folder / SUMMARY, Summary).roles
    except InputError as error:
        notes.append(why.FileNotUsable(error.what))
        return {}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _nothing(row: Mapping[str, Any]) -> None:
    pass
