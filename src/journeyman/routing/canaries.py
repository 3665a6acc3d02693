"""Decides about roles, by what the statistics say after every conversation; and watches those that were promoted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from journeyman.artifacts import write_model
from journeyman.config import RouteConfig, RouteMode
from journeyman.errors import JourneymanError
from journeyman.foreign import named
from journeyman.reasons import ReasonRecord
from journeyman.reasons.routing import OnlyErrors
from journeyman.records import Record
from journeyman.routing.conversations import Conversation
from journeyman.routing.exchanges import Exchange
from journeyman.routing.modes import Action, Route, RouteFollower, changed
from journeyman.stats.canary import Canary
from journeyman.stats.watch import Watch

SUMMARY = "canaries.json"
_LEAST_PAIRS = 50
PROMOTED: RouteMode = "fallback"
"""The mode after a promotion: the student answers, and the teacher still does where it fails."""


class Pairs(BaseModel):
    """Answers of teacher and student to the same requests, by the role's checks."""

    both: int = Field(0, description="both passed")
    student_only: int = 0
    teacher_only: int = 0
    neither: int = 0
    unscored: int = 0
    errors: int = Field(0, description="the student gave no answer; counted as failed besides")

    @property
    def scored(self) -> int:
        return self.both + self.student_only + self.teacher_only + self.neither

    @property
    def teacher_failed(self) -> float:
        return (self.student_only + self.neither) / self.scored if self.scored else 0.0


class RoleState(BaseModel):
    """What is known about a role in its present trial."""

    trial: int
    mode: str
    conversations: int = 0
    release: str = ""
    unscored: int = 0
    ignored: int = Field(0, description="exchanges whose conversation's id had counted already")
    judged: int = Field(0, description="conversations of which more is known than whether there were errors")
    student: int = 0
    fallbacks: int = 0
    test: str | None = Field(None, description="state of the statistics; None: not begun")
    most_failed: float | None = Field(None, description="the failed part that a promoted student may have")
    pairs: Pairs = Field(default_factory=Pairs)
    verdict: str = "go_on"
    reason: ReasonRecord | None = None
    figures: dict[str, float] = Field(default_factory=dict)

    @property
    def why(self) -> str:
        return "" if self.reason is None else self.reason.sentence()


class Summary(Record):
    """canaries.json: for those who look."""

    roles: dict[str, dict[str, Any]]


class Canaries:
    """The trials of all roles.

    Args:
        folder: with the routes.
        saved: what `state` returned.
        told: hears decisions.
    """

    def __init__(
        self, folder: Path, config: RouteConfig, saved: Mapping[str, Any], told: Callable[[str], None]
    ) -> None:
        self._folder, self._config, self._told = folder, config, told
        self._routes = RouteFollower(folder, told)
        self._roles = {role: RoleState.model_validate(one) for role, one in saved.items()}
        self._tests: dict[str, Canary | Watch] = {}

    def state(self) -> dict[str, Any]:
        for role, test in self._tests.items():
            self._roles[role].test = test.to_json()
        return {role: one.model_dump() for role, one in self._roles.items()}

    def count(self, found: Exchange) -> None:
        """Counts an exchange: pairs, in shadow."""
        if found.place != "shadow":
            return
        role = self._role(found.role, found.trial, found.mode)
        if role is None:
            return
        pairs = role.pairs
        student = False if found.failed and found.checked == "unscored" else _passed(found.checked)
        pairs.errors += bool(found.failed and found.checked == "unscored")
        teacher = _passed(found.teacher_checked)
        if student is None or teacher is None:
            pairs.unscored += 1
        elif student:
            pairs.both, pairs.student_only = pairs.both + teacher, pairs.student_only + (not teacher)
        else:
            pairs.teacher_only, pairs.neither = pairs.teacher_only + teacher, pairs.neither + (not teacher)

    def ignore(self, found: Exchange) -> None:
        """Counts an exchange of a conversation that has counted already."""
        role = self._role(found.role, found.trial, found.mode)
        if role is not None:
            role.ignored += 1

    def hear(self, one: Conversation) -> None:
        """Takes a conversation that is over, and looks."""
        role = self._role(one.role, one.trial, one.mode)
        if role is None or role.verdict != "go_on":  # the first decision counts
            return
        role.conversations += 1
        role.unscored += one.failed is None
        role.judged += one.failed is not None and one.by != "errors"
        role.student += one.arm == "student"
        role.fallbacks += one.fallbacks
        test = self._test(one.role, role)
        if test is None:
            return
        said = test.observe(one.arm, one.share, one.failed) if isinstance(test, Canary) else test.observe(one.failed)
        role.verdict, role.reason = said.verdict, said.reason.record()
        if said.verdict == "promote" and role.judged < self._config.least:
            role.verdict, role.reason = "go_on", OnlyErrors(role.judged, self._config.least).record()

    def carry_out(self) -> bool:
        """Changes the routes of roles about which there is a decision; whether it has changed one.

        A decision that was lost is carried out again.
        """
        self._routes.look()
        made = False
        for name, role in self._roles.items():
            route = self._routes.roles.get(name)
            if role.verdict == "go_on" or route is None or route.trial != role.trial:
                continue
            if role.verdict == "promote" and route.mode == "canary":
                made |= self._change(name, role, route, PROMOTED, "promote")
            elif role.verdict == "roll_back" and route.mode != "teacher":
                made |= self._change(name, role, route, "teacher", "roll_back")
        self._summarize()
        return made

    def _change(self, name: str, role: RoleState, route: Route, mode: RouteMode, action: Action) -> bool:
        try:
            made = changed(self._folder, name, mode, why=role.why, action=action, only_from=route)
        except JourneymanError as error:
            self._told(f"warning: {error.what}: {named(name)} stays in {route.mode}")
            return False
        if made is None:
            return False  # somebody has changed it meanwhile
        self._told(f"{named(name)}: {action.replace('_', ' ')}, {route.mode} -> {mode}: {role.why}")
        if action == "promote":
            self._routes.look()
            self._role(name, made.trial, mode)
        return True

    def _summarize(self) -> None:
        for name, test in self._tests.items():
            self._roles[name].figures = figures_of(test)
        roles = {
            name: {**one.model_dump(mode="json", exclude={"test"}), "why": one.why} for name, one in self._roles.items()
        }
        write_model(self._folder / SUMMARY, Summary(roles=roles))

    def _role(self, name: str, trial: int, mode: str) -> RoleState | None:
        """The state of a role's trial; None: that trial is over."""
        known = self._roles.get(name)
        if known is not None and known.trial == trial:
            return known
        if known is not None and known.trial > trial:
            return None
        self._routes.look()
        route = self._routes.roles.get(name)
        release = route.release if route is not None and route.trial == trial else ""
        made = self._roles[name] = RoleState(trial=trial, mode=mode, release=release)
        test = self._tests.pop(name, None)
        if known is not None and (not known.release or known.release == release):
            made.most_failed = self._expected(known, test)
        return made

    def _expected(self, before: RoleState, test: Canary | Watch | None) -> float | None:
        """What a role's last trial has shown about the failed part that the same student may have."""
        if before.mode == "shadow":
            enough = before.pairs.scored >= _LEAST_PAIRS
            return min(1.0, before.pairs.teacher_failed + self._config.margin) if enough else None
        if before.mode == "canary" and before.verdict == "promote":
            if test is None and before.test is not None:
                test = Canary.from_json(before.test)
            return test.most_failed() if isinstance(test, Canary) else None
        return before.most_failed

    def _test(self, name: str, role: RoleState) -> Canary | Watch | None:
        """The statistics of a trial; None: nothing says what to compare the student with."""
        if name in self._tests:
            return self._tests[name]
        config, saved = self._config, role.test
        made: Canary | Watch
        if role.mode == "canary":
            made = Canary.from_json(saved) if saved else Canary(config.alpha, config.margin, config.least)
        elif saved:
            made = Watch.from_json(saved)
        elif role.most_failed is not None:
            made = Watch(role.most_failed, config.alpha)
        else:
            return None
        self._tests[name] = made
        return made


def figures_of(test: Canary | Watch) -> dict[str, float]:
    """What is shown of the statistics: intervals that hold at any time."""
    if isinstance(test, Watch):
        failed = test.failed / test.scored if test.scored else 0.0
        return {
            "scored": test.scored, "failed": failed, "most_failed": test.most_failed,
            "evidence": test.evidence, "needed": 1 / test.alpha,
        }  # fmt: skip
    difference, student, teacher = test.difference(), test.failure_rate("student"), test.failure_rate("teacher")
    return {
        "student_scored": test.student.scored, "student_failed": test.student.failed,
        "student_low": student.low, "student_high": student.high,
        "teacher_scored": test.teacher.scored, "teacher_failed": test.teacher.failed,
        "teacher_low": teacher.low, "teacher_high": teacher.high,
        "difference": test.estimate, "difference_low": difference.low, "difference_high": difference.high,
        "margin": test.margin, "evidence": test.evidence, "evidence_against": sum(test.evidence_against),
        "needed": 1 / test.alpha,
    }  # fmt: skip


def _passed(checked: str) -> bool | None:
    return {"pass": True, "fail": False}.get(checked)
