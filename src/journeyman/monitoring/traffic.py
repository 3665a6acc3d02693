"""Counts what was asked and answered, by role. Its memory grows with the lines that a look reads, which are limited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from journeyman.gateway.feedback import Feedback
from journeyman.monitoring.answerers import CONFIDENCE, LEAST_ERROR, TOO_MANY, Answerer, UnitCount, error_of
from journeyman.monitoring.report import Share
from journeyman.routing.conversations import Conversation
from journeyman.routing.exchanges import Exchange
from journeyman.routing.modes import WITH_STUDENT
from journeyman.stats.groups import effective_rows
from journeyman.stats.rates import wilson


@dataclass
class RoleTraffic:
    """A role, in the making.

    Attributes:
        models: of the teacher's answers.
        fallbacks: reason → requests.
        to_student: conversation, or the number of a request without one → requests that went to the student first.
        failed_rows: see RoleReport.
    """

    teacher: Answerer
    student: Answerer
    shadow: Answerer
    requests: int = 0
    cancelled: int = 0
    wrong: int = 0
    models: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    to_student: Counter[str] = field(default_factory=Counter)
    failed_rows: int = 0


class Traffic:
    """The roles of a window, filled in any order.

    Args:
        judged: whether checks or a rule decide about every answer of a role, and not only about errors.
    """

    def __init__(self, judged: Callable[[str], bool]) -> None:
        self._judged = judged
        self.roles: dict[str, RoleTraffic] = {}
        self._heard: list[tuple[int, Feedback]] = []
        self._where: dict[int, tuple[UnitCount, bool | None]] = {}

    def take(self, one: Exchange) -> None:
        """Counts an exchange."""
        role = self._role(one.role)
        if one.place == "shadow":
            role.shadow.take(one)
            _score(role.shadow.unit(one), one.failed)
        elif one.place == "delivered":
            self._delivered(role, one)

    def _delivered(self, role: RoleTraffic, one: Exchange) -> None:
        role.requests += 1
        role.cancelled += one.outcome == "cancelled"
        status = one.status or 0
        role.wrong += one.outcome == "refused" or (400 <= status < LEAST_ERROR and status != TOO_MANY)
        by_student = one.arm == "student"
        if by_student:
            role.to_student[one.conversation or f"exchange {one.seq}"] += 1
        if one.fallback:
            role.fallbacks[one.fallback] += 1
        if by_student and not one.fallback:
            role.student.take(one)
        else:
            # An answer after a fallback took the student's time too.
            role.teacher.take(one, timed=not one.fallback)
            if one.model:
                role.models[one.model] += 1
        if one.mode not in WITH_STUDENT:  # of the others, Conversation says how they went
            unit = role.teacher.unit(one)
            _score(unit, one.failed)
            self._where[one.seq] = (unit, one.failed)

    def count_failed(self, one: Exchange) -> None:
        """Counts an answer of the teacher where the student failed: it is worth learning from."""
        if one.place == "shadow":
            worth = one.failed is True and one.teacher_checked != "fail"
        else:
            worth = one.place == "delivered" and bool(one.fallback) and one.outcome == "complete" and not error_of(one)
        if worth:
            self._role(one.role).failed_rows += 1

    def over(self, one: Conversation) -> None:
        """Counts a conversation that is over, in a mode in which the student answers."""
        if one.failed is None:
            return
        role = self._role(one.role)
        if one.by not in ("feedback", "credit") and not role.student.judged:
            return
        answerer = role.student if one.arm == "student" else role.teacher
        answerer.known.append(one.failed)
        answerer.named += bool(one.conversation)

    def _role(self, name: str) -> RoleTraffic:
        if name not in self.roles:
            judged = self._judged(name)
            self.roles[name] = RoleTraffic(Answerer(judged), Answerer(judged), Answerer(judged))
        return self.roles[name]

    def hear(self, said: Feedback, number: int) -> None:
        """Takes feedback about an answer that `over` does not count; `number`: of its row."""
        if said.score is not None:
            self._heard.append((number, said))

    def settle(self) -> None:
        """Applies feedback, once everything was taken: of several about the same, the last one counts."""
        for _, said in sorted(self._heard, key=lambda one: -one[0]):
            assert said.score is not None
            if said.exchange is None:
                for name, role in self.roles.items():
                    unit = role.teacher.units.get((said.conversation, 0))
                    if unit is not None and unit.told is None and said.role in ("", name):
                        unit.told = said.score
            elif said.exchange in self._where:
                self._hear_about(*self._where.pop(said.exchange), said.score)
        self._heard.clear()

    @staticmethod
    def _hear_about(unit: UnitCount, failed: bool | None, score: float) -> None:
        unit.heard += 1
        unit.disliked += 1.0 - score
        if failed is not None:
            unit.scored -= 1
            unit.failed -= failed


def fallback_share(role: RoleTraffic) -> Share | None:
    """The share of requests to the student that the teacher answered; None if there were none."""
    sizes = list(role.to_student.values())
    if not sizes:
        return None
    of, part = sum(sizes), sum(role.fallbacks.values())
    effective = effective_rows(sizes)
    low, high = wilson(part / of * effective, effective, CONFIDENCE)
    return Share(part=part, of=of, low=low, high=high)


def _score(unit: UnitCount, failed: bool | None) -> None:
    if failed is not None:
        unit.scored += 1
        unit.failed += failed
