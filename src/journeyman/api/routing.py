"""A student beside the teacher: what `journeyman record` adds if [route] names one, and the commands about routes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from journeyman.api.access import key_of
from journeyman.api.route_changes import RouteChanges
from journeyman.config import CONFIG_NAME, Config, RoleRoute, RouteMode, config_in
from journeyman.errors import InputError, UsageError
from journeyman.foreign import named
from journeyman.gateway.forwarding import Forwarder, Target, target_of
from journeyman.gateway.ledger import Ledger, RowMaker
from journeyman.gateway.rows import RowSettings
from journeyman.locking import is_at_work, locked
from journeyman.routing.assessing import Assessor
from journeyman.routing.assigning import Assignments
from journeyman.routing.gathering import Gathered, gather
from journeyman.routing.judging import Judge
from journeyman.routing.modes import Route, RouteFollower, changed
from journeyman.routing.router import StudentRouter
from journeyman.routing.undelivered import FOLDER, Undelivered

GATHERED = "gathered"
"""The folder of a run for the copy of what was recorded."""
_PAUSE_S, _LAST_S = 0.5, 10.0
ASSESSING = "assessing"
"""The folder in routing/ whose lock the process that judges holds."""
Told = Callable[[str], None]


def routing_folder(folder: Path, config: Config) -> Path:
    return folder / config.route.folder


def student_of(config: Config) -> Target:
    """The student's port.

    Raises:
        UsageError: it is not a base URL.
    """
    return target_of(config.route.student, "route.student", 'For example: student = "http://127.0.0.1:8011"')


@dataclass
class Routing:
    """The student's side of a recorder, open as long as `opened`."""

    folder: Path
    config_path: Path
    config: Config
    teacher: Target
    undelivered: Ledger
    arms: Assignments
    told: Told

    @asynccontextmanager
    async def router(self, forward: Forwarder) -> AsyncIterator[StudentRouter]:
        """The router, whose routes follow the file, the config file and the student's bundle."""
        route = self.config.route
        student, key = student_of(self.config), key_of(route.student_key_env, "route.student_key_env")
        judge = Judge(self.config, self.config_path.parent)
        routes = RouteFollower(self.folder, self.told)
        changes = RouteChanges(self.folder, self.config_path, self.config, routes, self.told)
        changes.begin()
        made = StudentRouter(
            forward, self.teacher, student, key, routes, self.arms, Undelivered(self.undelivered), judge.before,
            self.config.record, route, self.told,
        )  # fmt: skip
        tasks = [
            asyncio.create_task(changes.follow_files()),
            asyncio.create_task(changes.follow_student(forward, student, key)),
        ]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made.close()


@contextmanager
def opened(
    folder: Path,
    config: Config,
    rows: Path,
    teacher: Target,
    told: Told,
    maker: Callable[[RowSettings], RowMaker],
    own: str,
    *,
    assess: bool = True,
) -> Iterator[Routing]:
    """The student's side of a recorder that holds the lock of `rows`.

    Args:
        folder: of the run.
        own: the recorder's base URL.
        assess: judge and decide, in a process of its own.

    Raises:
        DiskError: the folder cannot be written to.
        UsageError: [route] is not usable.
    """
    student = student_of(config)
    if student.base in (teacher.base, own.removesuffix("/v1")):
        whose = "upstream" if student.base == teacher.base else "recorder itself"
        raise UsageError(f"route.student {student.base} is the {whose}", "Name the port of: journeyman serve")
    key_of(config.route.student_key_env, "route.student_key_env")
    place = routing_folder(folder, config)
    (place / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    place.chmod(0o700)
    with locked(place):  # two recorders may not share it, whatever record.folder they have
        yield from _opened(folder, config, rows, place, teacher, told, maker, assess)


def _opened(
    folder: Path, config: Config, rows: Path, place: Path, teacher: Target, told: Told,
    maker: Callable[[RowSettings], RowMaker], assess: bool,
) -> Iterator[Routing]:  # fmt: skip
    settings = RowSettings(config.record, config.redact)
    arms = Assignments(place)
    ledger = Ledger(place / FOLDER, settings, maker(settings), told, lambda row: None)
    process = AssessorProcess(folder, rows, told) if assess else None
    try:
        yield Routing(place, folder / CONFIG_NAME, config, teacher, ledger, arms, told)
    finally:
        ledger.close()
        if process is not None:
            process.close()
        arms.close()


def assessor_of(folder: Path, rows: Path, told: Told) -> Assessor:
    """What judges the rows of a run folder and decides; for one process at a time.

    Raises:
        JourneymanError: the config file is not valid, or the folder cannot be written to.
    """
    config = config_in(folder)
    return Assessor(rows, routing_folder(folder, config), config, Judge(config, folder), told)


def gathered(folder: Path, config: Config) -> Gathered:
    """Copies what was recorded in a run folder into GATHERED there, for `ingest`; the recorder may be running.

    Raises:
        UsageError: nothing was recorded.
        DiskError: the copy cannot be written.
    """
    rows = folder / config.record.folder
    if not rows.is_dir():
        raise UsageError(f"{rows}: nothing was recorded there", "Record first: journeyman record --upstream URL")
    found = gather(rows, routing_folder(folder, config), folder / GATHERED)
    if not found.rows:
        raise UsageError(f"{rows}: no row of a teacher's answer yet", "Wait, or look: journeyman record --check")
    return found


class AssessorProcess:
    """The assessor in a process, which is started again if it ends."""

    def __init__(self, folder: Path, rows: Path, told: Told) -> None:
        self._asked, self._told = (folder, rows), told
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._thread = threading.Thread(target=self._keep, name="assessor", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stop.is_set():
            here, there = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=_assess, args=(*self._asked, there, self._stop, os.getpid()), name="journeyman assessor"
            )
            process.start()
            there.close()
            with suppress(EOFError):
                while True:
                    self._told(str(here.recv()))
            process.join()
            if not self._stop.is_set():
                self._told(
                    f"warning: what judges the answers ended (exit code {process.exitcode}); it is started again"
                )
                self._stop.wait(5.0)

    def close(self) -> None:
        """Lets it take what has been written, and ends it."""
        self._stop.set()
        self._thread.join(60.0)


def _assess(folder: Path, rows: Path, sender: Connection, stop: threading.Event, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    place = routing_folder(folder, config_in(folder)) / ASSESSING
    while is_at_work(place):  # the child of a recorder that was killed ends what it is doing
        if stop.is_set() or os.getppid() != parent:
            return
        time.sleep(_PAUSE_S)
    with locked(place):
        assessor, until = assessor_of(folder, rows, sender.send), float("inf")
        while os.getppid() == parent and time.monotonic() < until:
            taken = assessor.step()
            if stop.is_set():
                until = min(until, time.monotonic() + _LAST_S)
            if not taken and stop.is_set():
                break
            if not taken:
                time.sleep(_PAUSE_S)
        assessor.close()


class RouteChanged(InputError):
    """The route is no longer the one that was to be changed."""


def change_route(
    folder: Path, role: str, mode: RouteMode, share: float | None, why: str, *, only_from: Route | None = None
) -> Route:
    """Changes who answers a role; a recorder that runs takes it over within a second.

    Args:
        only_from: change nothing if the route is not this one any more.

    Raises:
        RouteChanged: it is another one.
        UsageError: there is no student, or the share is none.
        JourneymanError: the file cannot be read or written.
    """
    config = config_in(folder)
    if not config.route.student and mode != "teacher":
        raise UsageError(
            f"{folder / CONFIG_NAME}: route.student is not set, so there is no student to ask",
            'Start one, journeyman serve, and name it: [route] student = "http://127.0.0.1:8011"',
        )
    if share is not None and mode != "canary":
        raise UsageError(f"--share is for a canary, not for {mode}", "Leave it out")
    if share is None:
        share = config.route.roles.get(role, RoleRoute()).share
    if not 0 < share < 1:
        raise UsageError(f"--share {share:g}: not between 0 and 1", "For example: --share 0.1")
    place = routing_folder(folder, config)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = changed(place, role, mode, share=share, why=why, only_from=only_from)
    if made is None:
        raise RouteChanged(f"{named(role)}: its route is another one now", "Look again: journeyman route --history")
    return made
