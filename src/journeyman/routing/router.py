"""The plan of each request: by its role's route and its conversation's arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from journeyman.config import RecordConfig, RouteConfig
from journeyman.gateway.forwarding import Forwarder, Target
from journeyman.gateway.plans import Asked, Plan, UpstreamAlone
from journeyman.routing.answering import ANSWERED_BY, EXCHANGE, TEACHER, ByStudent, Compared, Sides
from journeyman.routing.assigning import Assignments
from journeyman.routing.judging import JudgeBefore
from journeyman.routing.modes import WITH_STUDENT, Route, RouteFollower
from journeyman.routing.requests import RequestReader, StudentRequest
from journeyman.routing.running import Running
from journeyman.routing.shadows import Shadows
from journeyman.routing.student import NAME, Student
from journeyman.routing.undelivered import Undelivered


class StudentRouter:
    """A gateway.plans.Router with a student beside the upstream. Close it in the end.

    Args:
        student: its port; `key`: of that.
        before: the checks that an answer of the student can wait for.
        told: hears what a person must know.
    """

    def __init__(
        self, forward: Forwarder, teacher: Target, student: Target, key: str | None, routes: RouteFollower,
        arms: Assignments, undelivered: Undelivered, before: JudgeBefore, record: RecordConfig, config: RouteConfig,
        told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._routes, self._arms, self._reader = routes, arms, RequestReader(record)
        self._running = Running(arms, config.conversation_s)
        asked = Student(forward, student, key, config, before, self._reader)
        shadows = Shadows(forward, asked, undelivered, config, told)
        self._sides = Sides(forward, teacher, asked, undelivered, shadows)

    async def plan(self, asked: Asked) -> Plan:
        headers = {EXCHANGE: str(asked.number), ANSWERED_BY: TEACHER}
        alone = UpstreamAlone(asked, self._sides.forward, self._sides.teacher, headers=headers)
        if all(route.mode == TEACHER for route in self._routes.roles.values()):
            return alone
        request = await self._reader.read(asked)
        route = None if request is None else self._routes.roles.get(request.role)
        if request is None or route is None or route.mode == TEACHER or request.needs_state:
            return alone
        noted: dict[str, Any] = {"mode": route.mode, "trial": route.trial, "release": route.release or None}
        if route.mode == "shadow":
            self._running.answered(request.key, "teacher")
            return Compared(request, self._sides, {**noted, "arm": TEACHER}, headers)
        if route.mode not in WITH_STUDENT:
            return alone
        if self._goes_on(request, route):
            self._running.answered(request.key, "teacher")
            alone.route = {**noted, "begun_before": True}
            return alone
        share = 1.0
        if route.mode == "canary":
            drawn = self._arms.arm(route.trial, request.key, route.share)
            share, arm = drawn.share, drawn.arm
            self._running.answered(request.key, arm)
            if arm == TEACHER:
                alone.route = {**noted, "arm": arm, "share": share}
                return alone
        else:
            self._running.answered(request.key, "student")
        return ByStudent(request, self._sides, {**noted, "arm": NAME, "share": share}, route.mode != "student")

    def _goes_on(self, request: StudentRequest, route: Route) -> bool:
        """Whether the request goes on with a conversation that is the teacher's and not drawn in this canary."""
        if route.mode == "canary":
            before = self._running.began_before(request.role, route.trial, request.key)
        else:
            before = self._running.is_teachers(request.key)
        return before and request.begun

    @property
    def shadow(self) -> Mapping[str, int] | None:
        return self._sides.shadows.counts

    async def close(self) -> None:
        await self._sides.shadows.close()
        self._reader.close()
