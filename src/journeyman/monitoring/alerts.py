"""Alerts: each occurrence is raised once and resolved once, and delivered until the receiver takes it.

What was raised and what still has to be delivered is in one file, which is replaced by a rename before anything is
sent. A kill between sending and the next rename sends a message again: receivers can tell by its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from journeyman.artifacts import hash_of, read_model, write_model
from journeyman.config import AlertKind, MonitorConfig
from journeyman.errors import DiskError, InputError
from journeyman.foreign import named
from journeyman.monitoring.conditions import Condition, change_kind, conditions_of
from journeyman.monitoring.report import Report, RouteChange
from journeyman.reasons import ReasonRecord
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import (
    AlertDropped,
    AlertNotDelivered,
    DriftFound,
    ReceiverRemoved,
    TooManyWaiting,
)

STATE = "alerts.json"
_ABSENT_LOOKS = 3
"""Looks in a row that must see nothing of it before an alert is resolved."""
_FIRST_WAIT_S, _MOST_WAIT_S, _GIVE_UP_S, _MOST_PENDING = 30.0, 3600.0, 3 * 86_400.0, 1_000
Target = Literal["webhook", "command"]
Send = Callable[[str], str]
"""Sends a message, JSON; returns why that failed, or ""."""


class Message(BaseModel):
    """What a receiver gets."""

    id: str = Field(description="the same if a message is sent again")
    kind: AlertKind
    status: Literal["raised", "resolved"] = Field(description="a promotion or a rollback is only raised")
    role: str = Field(description="empty: it concerns no role")
    at: str = Field(description="time at which it was seen, in ISO 8601")
    run: str = Field(description="the run folder")
    code: str = Field(description="of the reason")
    details: Mapping[str, str | int | float | bool | None]
    text: str = Field(description="the reason as a sentence")


class Raised(BaseModel):
    """An alert that lasts."""

    kind: AlertKind
    role: str
    since: str
    reason: ReasonRecord
    codes: set[str] = Field(default_factory=set, description="codes of all that was told")
    absent: int = Field(0, description="looks in a row that saw nothing of it")
    absent_at: str = Field("", description="the last of these looks for drift; looks at the same one count once")


class Pending(BaseModel):
    """A message that has to be delivered."""

    message: Message
    to: Target
    tries: int = 0
    next_at: float = Field(description="seconds since 1970")
    since: float


class AlertState(BaseModel):
    """alerts.json."""

    format: Literal[1] = 1
    last_change: int | None = Field(None, description="number of the last change of a route that was told; None: none")
    last_change_at: str = Field("", description="its time; another one under the same number is of another routes.json")
    raised: dict[str, Raised] = Field(default_factory=dict)
    pending: list[Pending] = Field(default_factory=list)


class Alerts:
    """The alerts of a run folder, for one process at a time.

    Args:
        folder: for the state.
        run: the run folder's name, for messages.
        targets: those that are configured.
        told: hears alerts, and what went wrong with them.

    Raises:
        InputError: the state is damaged.
    """

    def __init__(
        self, folder: Path, run: str, config: MonitorConfig, targets: Mapping[Target, Send], told: Callable[[str], None]
    ) -> None:
        self._path, self._run, self._config, self._targets, self._told = folder / STATE, run, config, targets, told
        self._state = _saved(self._path)

    def take(self, report: Report, now: float) -> list[Message]:
        """Compares a look with what was raised; returns what is new, which is to be delivered."""
        made = [
            self._message(*change_kind(one), "raised", one.role, f"{one.number} {one.at}", now)
            for one in self._changes(report)
        ]
        made = [one for one in made if one.kind in self._config.alerts]
        for condition in conditions_of(report, self._config):
            made += self._compare(condition, now)
        for message in made:
            self._told(f"{message.status}: {message.text}")
            self._state.pending += [Pending(message=message, to=to, next_at=now, since=now) for to in self._targets]
        if (many := len(self._state.pending) - _MOST_PENDING) > 0:
            del self._state.pending[:many]
            self._told(f"warning: {TooManyWaiting(many, _MOST_PENDING).sentence()}")
        self._save()
        return made

    def deliver(self, now: float) -> int:
        """Sends what is due; returns how many messages still have to be delivered.

        A target gets the messages about one thing in their order, and nothing more after a failure, until the next
        call: however many are waiting, a target that hangs costs a look one try.
        """
        self._forget_removed()
        for to in self._targets:
            while (one := self._next(to, now)) is not None and self._delivered(one, now):
                pass
        return len(self._state.pending)

    def _next(self, to: Target, now: float) -> Pending | None:
        """The message to send next; first those that have failed least, so that one that always fails blocks none."""
        first: dict[tuple[str, str], Pending] = {}
        for one in self._state.pending:
            if one.to == to:
                first.setdefault(_about(one.message), one)
        return min((one for one in first.values() if one.next_at <= now), key=lambda one: one.tries, default=None)

    def _delivered(self, one: Pending, now: float) -> bool:
        failure = self._targets[one.to](one.message.model_dump_json())
        if not failure:
            self._state.pending.remove(one)
        else:
            one.tries += 1
            one.next_at = now + min(_MOST_WAIT_S, _FIRST_WAIT_S * 2 ** (one.tries - 1))
            self._told(f"warning: {AlertNotDelivered(one.to, one.tries, failure).sentence()}")
            if now - one.since > _GIVE_UP_S:
                self._state.pending.remove(one)
                self._told(f"warning: {AlertDropped(one.tries).sentence()}: {one.message.text}")
        self._save()
        return not failure

    def _forget_removed(self) -> None:
        """Messages to a target that is not configured any more would wait for ever."""
        counts = Counter(one.to for one in self._state.pending if one.to not in self._targets)
        for to, messages in counts.items():
            self._told(f"warning: {ReceiverRemoved(messages, to).sentence()}")
        if counts:
            self._state.pending = [one for one in self._state.pending if one.to in self._targets]
            self._save()

    def _compare(self, seen: Condition, now: float) -> list[Message]:
        key = f"{seen.kind}\0{seen.role}"
        raised = self._state.raised.get(key)
        if seen.state == "present" and seen.reason is not None:
            told = set() if raised is None else raised.codes
            if raised is not None and seen.codes <= told:
                raised.absent, raised.absent_at = 0, ""
                return []
            at = _iso(now)
            self._state.raised[key] = Raised(
                kind=seen.kind, role=seen.role, since=at, reason=seen.reason.record(), codes=told | seen.codes
            )
            return [self._message(seen.kind, seen.reason, "raised", seen.role, at, now)]
        if seen.state == "absent" and raised is not None and not raised.codes & seen.unknown:
            if DriftFound.code in raised.codes and seen.drift_at:
                if seen.drift_at == raised.absent_at:
                    return []
                raised.absent_at = seen.drift_at
            raised.absent += 1
            if raised.absent >= _ABSENT_LOOKS:
                del self._state.raised[key]
                reason = raised.reason.reason()
                return [self._message(seen.kind, reason, "resolved", seen.role, raised.since, now)]
        return []

    def _changes(self, report: Report) -> list[RouteChange]:
        """Changes since the last look; those from before the first one are not told."""
        numbers = [one.number for one in report.changes]
        before = self._state.last_change
        times = {one.number: one.at for one in report.changes}
        if before and numbers and min(numbers) <= before and times.get(before) != self._state.last_change_at:
            before = 0  # routes.json was begun anew
        if numbers:
            self._state.last_change, self._state.last_change_at = max(numbers), times[max(numbers)]
        elif before is None:
            self._state.last_change = 0
        return [] if before is None else [one for one in report.changes if one.number > before]

    def _message(
        self,
        kind: AlertKind,
        reason: Reason,
        status: Literal["raised", "resolved"],
        role: str,
        occurrence: str,
        now: float,
    ) -> Message:
        text = f"{named(role)}: {reason.sentence()}" if role else reason.sentence()
        return Message(
            id=hash_of([str(self._path.resolve()), kind, role, occurrence, status])[:16], kind=kind, status=status,
            role=role, at=_iso(now), run=self._run, code=reason.code, details=reason.details,
            text=text if status == "raised" else f"no longer: {text}",
        )  # fmt: skip

    def _save(self) -> None:
        """On a full disk, of all places, alerts must go on: the state is then kept in memory only, which is said."""
        try:
            write_model(self._path, self._state)
        except DiskError as error:
            self._told(f"warning: {error.what}: after a restart, alerts may be repeated")


def _about(message: Message) -> tuple[str, str]:
    """What a message is about. A promotion and a rollback both say who answers a role."""
    kind = "route" if message.kind in ("promoted", "rolled_back") else message.kind
    return kind, message.role


def _saved(path: Path) -> AlertState:
    if not path.exists():
        return AlertState()
    try:
        return read_model(path, AlertState)
    except InputError as error:
        raise InputError(error.what, "Remove it: alerts that last are then raised again") from error


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
