"""The plans with a student: it answers, and the teacher where it fails; or it is compared with the teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.gateway.forwarding import Forwarder, Target
from journeyman.gateway.plans import Answered
from journeyman.routing.requests import StudentRequest
from journeyman.routing.shadows import Shadows
from journeyman.routing.student import MOST_BYTES, NAME, Failed, Student
from journeyman.routing.undelivered import Given, Undelivered

EXCHANGE, ANSWERED_BY, FALLBACK = "Journeyman-Exchange", "Journeyman-Answered-By", "Journeyman-Fallback"
TEACHER = "teacher"


@dataclass(frozen=True)
class Sides:
    """Who can answer, and where answers go that no client gets."""

    forward: Forwarder
    teacher: Target
    student: Student
    undelivered: Undelivered
    shadows: Shadows


@dataclass
class ByStudent:
    """The Plan in which the student answers.

    Attributes:
        falls_back: the teacher answers where it fails.
    """

    request: StudentRequest
    sides: Sides
    route: Mapping[str, Any]
    falls_back: bool
    upstream: str = NAME
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self) -> Answered:
        asked, sides = self.request.asked, self.sides
        self.headers = {EXCHANGE: str(asked.number), ANSWERED_BY: NAME}
        if not self.falls_back:
            return Answered(NAME, await sides.student.send(self.request))
        began = time.monotonic()
        try:
            return await sides.student.answer(self.request)
        except Failed as failed:
            took_ms = int((time.monotonic() - began) * 1000)
            self.route = {**self.route, "fallback": failed.reason, "fallback_ms": took_ms}
            self.headers |= {ANSWERED_BY: TEACHER, FALLBACK: _in_header(failed.reason)}
            given = Given(failed.status, failed.kind, failed.coding, failed.pieces)
            told = {**self.route, "why": plain(failed.why, 300)}
            sides.undelivered.record(asked, told, given, "failed", failed.reason, took_ms=took_ms)
        got = await sides.forward.send(sides.teacher, asked.method, asked.path, asked.headers, asked.body)
        return Answered(sides.teacher.name, got)

    def passed(self, piece: bytes) -> None:
        pass

    def delivered(self, got: Answered) -> None:
        pass


@dataclass
class Compared:
    """The Plan in which the teacher answers, and the student is asked for the same afterwards."""

    request: StudentRequest
    sides: Sides
    route: Mapping[str, Any]
    headers: Mapping[str, str]
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def upstream(self) -> str:
        return self.sides.teacher.name

    async def answer(self) -> Answered:
        asked, sides = self.request.asked, self.sides
        got = await sides.forward.send(sides.teacher, asked.method, asked.path, asked.headers, asked.body)
        return Answered(sides.teacher.name, got)

    def passed(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= MOST_BYTES:
            self.pieces.append(piece)
        else:
            self.pieces.clear()

    def delivered(self, got: Answered) -> None:
        if got.response.status >= 400:
            return
        if self.size > MOST_BYTES:
            self.sides.shadows.leave_out()
            return
        headers = got.response.headers
        kind, coding = headers.get("Content-Type", ""), headers.get("Content-Encoding", "")
        self.sides.shadows.ask(self.request, self.route, Given(got.response.status, kind, coding, self.pieces))


def _in_header(reason: str) -> str:
    return plain(reason, 60).encode("ascii", "backslashreplace").decode()
