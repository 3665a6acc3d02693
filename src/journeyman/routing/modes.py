"""START HERE. Who answers the requests of a role, and since when: routes.json in the recorder's folder.

    teacher     the upstream answers
    shadow      the upstream answers; the student is asked afterwards, and the pair is scored
    canary      the student answers a share of the conversations, and the upstream those for which it fails
    fallback    the student answers, and the upstream where it fails
    student     the student answers

One file holds the present state and its history, so that they cannot contradict each other. It is replaced by a rename,
under a lock: the recorder, which decides about canaries, and the commands of users change it.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from journeyman.artifacts import read_model, write_model
from journeyman.config import RouteMode
from journeyman.errors import InputError
from journeyman.locking import waiting_lock
from journeyman.records import Record

ROUTES = "routes.json"
_MOST_EVENTS = 10_000
WITH_STUDENT: tuple[RouteMode, ...] = ("canary", "fallback", "student")
"""Modes in which clients get the student's answers."""
Action = Literal["command", "config", "promote", "roll_back", "new_release"]


class Route(Record):
    """Who answers a role's requests."""

    mode: RouteMode
    share: float = Field(1.0, description="share of the conversations that the student answers, in a canary")
    trial: int = Field(0, description="names what began with a change: conversations are drawn anew for each")
    since: str = Field("", description="time, in ISO 8601")
    release: str = Field("", description="SHA-256 of the student's bundle at that time; empty: not known")


class RouteEvent(Record):
    """A change of a role's route."""

    number: int
    at: str = Field(description="time, in ISO 8601")
    who: str = Field(description="user@host, or journeyman")
    action: Action
    role: str
    before: RouteMode | None = Field(description="None: the first one")
    mode: RouteMode
    share: float = 1.0
    why: str = ""
    release: str = ""


class RouteRecord(Record):
    """routes.json."""

    format: Literal[1] = 1
    roles: dict[str, Route] = Field(default_factory=dict)
    config: dict[str, str] = Field(default_factory=dict, description="role → what the config file said last")
    events: list[RouteEvent] = Field(default_factory=list)


def record_of(folder: Path) -> RouteRecord:
    """The present state and its history; empty if nothing was said yet.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / ROUTES
    if not path.exists():
        return RouteRecord()
    try:
        return read_model(path, RouteRecord)
    except InputError as error:
        remedy = f"Restore it, or remove it: every role is then answered by the upstream ({path})"
        raise InputError(error.what, remedy) from error


def changed(
    folder: Path,
    role: str,
    mode: RouteMode,
    *,
    share: float = 1.0,
    why: str = "",
    action: Action = "command",
    release: str = "",
    only_from: Route | None = None,
) -> Route | None:
    """Changes a role's route; returns the new one.

    Args:
        only_from: change nothing, and return None, if the route is not this one any more.

    Raises:
        DiskError: the folder cannot be written to.
        InputError: the file is damaged.
    """
    with waiting_lock(folder / ROUTES):
        record = record_of(folder)
        if only_from is not None and record.roles.get(role) != only_from:
            return None
        route = _with(record, role, mode, share, why, action, release)
        write_model(folder / ROUTES, record)
    return route


def configured(folder: Path, asked: Mapping[str, tuple[RouteMode, float]], release: str = "") -> list[RouteEvent]:
    """Takes over what the config file says, where it says something else than the last time.

    So a command holds until the config file is changed, and the other way round.
    """
    said = {role: f"{mode} {share:g}" for role, (mode, share) in asked.items()}
    with waiting_lock(folder / ROUTES):
        record = record_of(folder)
        if record.config == said:
            return []
        made = len(record.events)
        for role, (mode, share) in asked.items():
            if record.config.get(role) != said[role]:
                _with(record, role, mode, share, "", "config", release)
        for role in record.config.keys() - said.keys():
            _with(record, role, "teacher", 1.0, "the config file names it no longer", "config", release)
        record.config.clear()
        record.config.update(said)
        events = record.events[made:]
        write_model(folder / ROUTES, record)
    return events


def back_to_shadow(folder: Path, release: str) -> list[RouteEvent]:
    """The student serves another bundle: roles that it answered are answered by the upstream, and it is compared.

    So are roles that were rolled back, as that was another bundle. All other routes are said to be of this one.
    """
    with waiting_lock(folder / ROUTES):
        record = record_of(folder)
        made, before = len(record.events), dict(record.roles)
        last = {event.role: event.action for event in record.events}
        for role, route in before.items():
            other = bool(route.release) and route.release != release
            if other and (route.mode in WITH_STUDENT or (route.mode == "teacher" and last.get(role) == "roll_back")):
                _with(record, role, "shadow", 1.0, "the student serves another bundle", "new_release", release)
            elif route.release != release:
                trial = _new_trial(route) if other and route.mode == "shadow" else route.trial
                record.roles[role] = route.model_copy(update={"release": release, "trial": trial})
        if record.roles != before:
            write_model(folder / ROUTES, record)
    return record.events[made:]


def _with(
    record: RouteRecord, role: str, mode: RouteMode, share: float, why: str, action: Action, release: str
) -> Route:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = record.roles.get(role)
    release = release or (before.release if before else "")
    number = record.events[-1].number + 1 if record.events else 1
    share = share if mode == "canary" else 1.0
    # A changed share goes on with the same canary: what it has seen stays valid.
    same = before is not None and before.mode == mode == "canary" and before.release == release
    trial = before.trial if same and before is not None else _new_trial(before)
    record.roles[role] = Route(mode=mode, share=share, trial=trial, since=now, release=release)
    record.events.append(
        RouteEvent(
            number=number, at=now, who=_who() if action == "command" else "journeyman", action=action, role=role,
            before=None if before is None else before.mode, mode=mode, share=share, why=why, release=release,
        )
    )  # fmt: skip
    del record.events[:-_MOST_EVENTS]
    return record.roles[role]


def _new_trial(before: Route | None) -> int:
    """A number that no trial had, also if routes.json was removed in between."""
    return max(int(time.time()), before.trial + 1 if before else 0)


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name
        return f"{os.getuid()}@{socket.gethostname()}"


class RouteFollower:
    """The routes as the file says now. A look costs one system call; a damaged file leaves the routes as they were.

    Args:
        told: hears that the file is damaged, once for each state of it.
    """

    def __init__(self, folder: Path, told: Callable[[str], None]) -> None:
        self._path, self._told = folder / ROUTES, told
        self._state: tuple[int, ...] | None = None
        self.roles: dict[str, Route] = {}

    def look(self) -> bool:
        """Reads the file if it has changed; whether it has."""
        try:
            found = self._path.stat()
            state: tuple[int, ...] | None = (found.st_ino, found.st_size, found.st_mtime_ns)
        except FileNotFoundError:
            state = None
        if state == self._state:
            return False
        self._state = state
        try:
            self.roles = record_of(self._path.parent).roles
        except InputError as error:
            self._told(f"warning: {error.what}: the routes stay as they were. {error.remedy}")
        return True
