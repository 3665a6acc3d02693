"""What the plan warns of or refuses."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole


@dataclass(frozen=True)
class WarmupNeverEnds(Reason, code="warmup_never_ends"):
    says = (
        "train.warmup_steps = {warmup_steps} is not below the {steps} steps of the run: the learning rate never comes "
        "down from its rise to {learning_rate:g}"
    )
    warmup_steps: int
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class RoleWithoutRows(OfRole, code="role_without_rows"):
    """`known`: the roles that rows have, separated by commas."""

    says = "[roles.{role}] names a role that no row has; the roles are: {known}"
    known: str


@dataclass(frozen=True)
class OverContext(Reason, code="over_context"):
    """`context`: the tokens that the base was trained for."""

    says = "rows of {tokens} tokens exceed the base's context of {context}"
    tokens: int
    context: int


@dataclass(frozen=True)
class TooFewTestRows(OfRole, code="too_few_test_rows"):
    """Not even a success on all test rows would reach the rule.

    `effective_rows`: what the rows count as, since rows that belong together say less; `min_success` is a share;
    `needed`: independent rows that would do; None where no number that was tried does.
    """

    rows: int
    effective_rows: float
    min_success: float
    needed: int | None

    def sentence(self) -> str:
        together = f", which count as {self.effective_rows:.1f} since some belong together,"
        counted = "" if self.effective_rows == self.rows else together
        return (
            f"{named(self.role)}: {self.rows} test rows{counted} cannot prove a success of {self.min_success:.0%} "
            "even if all pass" + (f"; {self.needed} would" if self.needed is not None else "")
        )


@dataclass(frozen=True)
class TrainingDoesNotFit(Reason, code="training_does_not_fit"):
    """Gigabytes (10^9 bytes): the limit, and what each way of training needs; None where the way was not tried."""

    limit_gb: float
    keep_gb: float | None
    recompute_gb: float | None
    stream_gb: float | None

    def sentence(self) -> str:
        tried = {"keep": self.keep_gb, "recompute": self.recompute_gb, "stream": self.stream_gb}
        shown = ", ".join(f"{way} {needed:.1f}" for way, needed in tried.items() if needed is not None)
        return f"training does not fit into {self.limit_gb:.1f} GB (GB needed: {shown})"
