"""Why iterating ends."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class VerdictIsDeploy(Reason, code="iterating_deploy"):
    says = "the verdict is deploy: every rule passes, so there is nothing to improve"


@dataclass(frozen=True)
class VerdictIsInsufficient(Reason, code="iterating_insufficient"):
    says = (
        "the verdict is insufficient: no rule fails, so other settings would settle nothing; it takes more held-out "
        "rows, or rows that can be scored"
    )


@dataclass(frozen=True)
class VerdictIsAbort(Reason, code="iterating_abort"):
    says = "the verdict is abort: tuning improved nothing over the base, so there is no gain to go on with"


@dataclass(frozen=True)
class NoChangeLeft(Reason, code="iterating_no_change"):
    says = "nothing that the verdict advises is a change of settings: what is left needs you"


@dataclass(frozen=True)
class GainStopped(Reason, code="iterating_gain_stopped"):
    """`tried`: changes of the newest settings."""

    fix = "journeyman search tries other settings, on validation rows alone"

    tried: int

    def sentence(self) -> str:
        if self.tried == 1:
            return "the gain has stopped: the change that was tried is no better on the validation rows"
        return (
            f"the gain has stopped: none of the {self.tried} changes that were tried is better on the validation rows"
        )


@dataclass(frozen=True)
class LooksUsed(Reason, code="iterating_looks_used"):
    looks: int

    def sentence(self) -> str:
        times = "look" if self.looks == 1 else "looks"
        return (
            f"{self.looks} further {times} at the held-out rows allowed, none left; --looks allows more, and each has "
            "half the error of the one before"
        )


@dataclass(frozen=True)
class BudgetSpent(Reason, code="iterating_budget_spent"):
    says = (
        "the budget is spent: {left_s:,.0f} s of {budget_s:,.0f} s are left, and the next step takes about "
        "{next_s:,.0f} s; --budget allows more"
    )
    budget_s: float
    left_s: float
    next_s: float
