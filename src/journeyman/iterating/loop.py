"""What to do next: try a change on the validation rows, make the run anew with one that is better, or end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from journeyman.errors import Interrupted, NoGo, StaleArtifact, TrainingDiverged
from journeyman.iterating.changes import (
    Change,
    Compared,
    Settings,
    changes_of,
    is_better,
    is_to_iterate,
    left_to_the_user,
)
from journeyman.iterating.ledger import (
    Entry,
    Ledger,
    Looked,
    Stopped,
    Tried,
    in_force,
    looks_of,
    made_with,
    pending,
    pending_s,
    spent_s,
)
from journeyman.iterating.protocol import Shown, Work
from journeyman.iterating.telling import settings_text, told_after, told_before, told_of_look
from journeyman.manifests import DecisionManifest
from journeyman.reasons import Reason
from journeyman.reasons import iterating as why

Outcome = Literal["better", "not_better", "diverged", "does_not_fit"]


@dataclass(frozen=True)
class Limits:
    """What may be spent. `looks`: further looks at the held-out rows."""

    budget_s: float
    looks: int


@dataclass(frozen=True)
class Ended:
    """How iterating ended.

    Attributes:
        settings: that differ from those of the beginning, with which the run is made now.
        left: advice that needs the user, and the command that helps.
    """

    reason: Reason
    shown: Shown
    settings: dict[str, Any]
    left: Sequence[tuple[Reason, str]]


class Iterating:
    """A loop over a run's advice.

    Args:
        session: hash of the settings and rows from which it begins; what was recorded with it is not done again.
        say: takes lines for the user.
    """

    def __init__(
        self, work: Work, ledger: Ledger, session: str, limits: Limits, say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._work, self._ledger, self._session, self._limits = work, ledger, session, limits
        self._say, self._clock = say, clock
        self._until = clock() + limits.budget_s - spent_s(ledger.of(session))

    def run(self) -> Ended:
        """Tries changes until there is a reason to end.

        Raises:
            Interrupted: asked to stop; the same loop resumes.
            JourneymanError: as the work.
        """
        shown: Shown | None = None
        while True:
            change = pending(self._entries)
            if change is not None:
                refused = self._refused_look()
                if refused is not None:
                    return self._ended(refused, shown or self._not_looked(change))
                shown = self._look(change.settings)
            elif shown is None:
                shown = self._work.shown(in_force(self._entries), redo=False)
            reason = self._next(shown)
            if reason is not None:
                return self._ended(reason, shown)

    @property
    def _entries(self) -> Sequence[Entry]:
        return self._ledger.of(self._session)

    def _ended(self, reason: Reason, shown: Shown) -> Ended:
        left = left_to_the_user(shown.decision, shown.recipe, cut_rows=shown.cut_rows)
        return Ended(reason, shown, made_with(self._entries), left)

    def _refused_look(self) -> Reason | None:
        """Why the limits do not allow to look at the held-out rows with a change that is better."""
        if len(looks_of(self._entries)) >= self._limits.looks:
            return why.LooksUsed(self._limits.looks)
        left, needed = self._until - self._clock(), pending_s(self._entries)
        return why.BudgetSpent(self._limits.budget_s, max(0.0, left), needed) if needed > left else None

    def _not_looked(self, change: Tried) -> Shown:
        """The run without a change whose look the limits do not allow."""
        try:
            return self._work.shown(made_with(self._entries), redo=False)
        except StaleArtifact as error:
            raise StaleArtifact(
                f"{error.what}. Making it anew with {settings_text(change.settings)}, which is better on the "
                "validation rows, was begun or the settings were changed",
                "To finish it, which may be a look at the held-out rows, give more --looks and --budget",
            ) from error

    def _next(self, shown: Shown) -> Reason | None:
        """Tries changes until one is better on the validation rows, and is pending, or there is a reason to end."""
        if not is_to_iterate(shown.decision):
            return _of_verdict(shown.decision)
        changes = changes_of(shown.decision, shown.recipe, cut_rows=shown.cut_rows)
        if not changes:
            return why.NoChangeLeft()
        if len(looks_of(self._entries)) >= self._limits.looks:
            return why.LooksUsed(self._limits.looks)
        settings = in_force(self._entries)
        known = [one.settings for one in self._entries if isinstance(one, Tried)]
        for change in changes:
            wanted = {**settings, **change.settings}
            if wanted in known:
                continue
            reason = self._try(change, settings, wanted)
            if reason is not None or pending(self._entries) is not None:
                return reason
        return why.GainStopped(len(changes))

    def _try(self, change: Change, settings: Settings, wanted: dict[str, Any]) -> Reason | None:
        """Why the loop ends; None: the change was tried, and the ledger says what came of it."""
        compared: Compared | None = None
        start, look_s = self._clock(), 0.0
        try:
            estimate = self._work.estimate(settings, wanted)
            left = self._until - self._clock()
            if estimate.total_s > left:
                return why.BudgetSpent(self._limits.budget_s, max(0.0, left), estimate.total_s)
            look_s = estimate.look_s
            self._say(told_before(change, estimate))
            compared = self._work.compare(settings, wanted)
            outcome: Outcome = "better" if is_better(compared, change.aim) else "not_better"
        except Interrupted:
            self._stopped(wanted, start)
            raise
        except TrainingDiverged:
            outcome = "diverged"
        except NoGo:
            outcome = "does_not_fit"
        entry = Tried(
            session=self._session, at=_now(), change=dict(change.settings), settings=wanted, role=change.role,
            reason=change.reason.record(), outcome=outcome, look_s=look_s, seconds=self._clock() - start,
            **({} if compared is None else {**vars(compared), "worse": list(compared.worse)}),
        )  # fmt: skip
        self._ledger.add(entry)
        self._say(told_after(entry))
        return None

    def _stopped(self, settings: dict[str, Any], start: float) -> None:
        self._ledger.add(Stopped(session=self._session, at=_now(), settings=settings, seconds=self._clock() - start))

    def _look(self, settings: dict[str, Any]) -> Shown:
        """The run made anew with these settings; with those before, if the plan refuses them.

        Only this is ever redone. It is recorded when it is done, so that a kill leaves it pending.
        """
        start, look, verdict, passed, rows, refused = self._clock(), None, None, None, None, ""
        try:
            try:
                shown = self._work.shown(settings, redo=True)
                look, verdict, passed, rows = shown.look, shown.decision.verdict, shown.passed, shown.rows
            except NoGo as error:
                refused = str(error)
                shown = self._work.shown(made_with(self._entries), redo=True)
        except Interrupted:
            self._stopped(settings, start)
            raise
        entry = Looked(
            session=self._session, at=_now(), settings=settings, look=look, verdict=verdict, passed=passed, rows=rows,
            why=refused, seconds=self._clock() - start,
        )  # fmt: skip
        self._ledger.add(entry)
        self._say(told_of_look(entry))
        return shown


def _of_verdict(decision: DecisionManifest) -> Reason:
    if decision.verdict == "deploy":
        return why.VerdictIsDeploy()
    return why.VerdictIsAbort() if decision.verdict == "abort" else why.VerdictIsInsufficient()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
