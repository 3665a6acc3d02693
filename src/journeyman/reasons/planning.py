"""Reasons of the plan for a warning or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole


@dataclass(frozen=True)
class WarmupNeverEnds(Reason, code="warmup_never_ends"):
    says = (
        "train.warmup_steps = {warmup_steps} is not below the run's {steps} steps: the learning rate never decays from "
        "its peak of {learning_rate:g}"
    )
    warmup_steps: int
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class RoleWithoutRows(OfRole, code="role_without_rows"):
    """`known`: the roles of the rows, separated by commas."""

    says = "[roles.{role}] names a role that no row has; the roles are: {known}"
    known: str


@dataclass(frozen=True)
class OverContext(Reason, code="over_context"):
    """`context`: the context length of the base, in tokens."""

    says = "rows of {tokens} tokens exceed the base's context length of {context}"
    tokens: int
    context: int


@dataclass(frozen=True)
class TooFewTestRows(OfRole, code="too_few_test_rows"):
    """Even if all test rows pass, the rule cannot be reached.

    `effective_rows`: what the rows count as, given that related rows say less than independent ones; `min_success` is
    a share; `needed`: independent rows that would be enough; None if no number that was tried is.
    """

    rows: int
    effective_rows: float
    min_success: float
    needed: int | None

    def sentence(self) -> str:
        together = f", which count as {self.effective_rows:.1f} because some belong together,"
        counted = "" if self.effective_rows == self.rows else together
        return (
            f"{named(self.role)}: {self.rows} test rows{counted} cannot prove a success of {self.min_success:.0%} "
            "even if all pass" + (f"; {self.needed} would" if self.needed is not None else "")
        )


@dataclass(frozen=True)
class TrainedByTransformers(Reason, code="trained_by_transformers"):
    """`architecture`: the class in transformers; `modules`: the adapted linear layers, separated by commas."""

    says = (
        "{architecture} is trained through transformers and peft, one row at a time: slower than by our own decoder, "
        "for which the time is estimated; the adapter changes {modules}"
    )
    architecture: str
    modules: str


@dataclass(frozen=True)
class TargetsNotThere(Reason, code="targets_not_there"):
    """`missing`: values of train.lora.targets that are no layers of the base, separated by commas."""

    says = "{architecture} has no layers with these names of train.lora.targets: {missing}"
    architecture: str
    missing: str


@dataclass(frozen=True)
class TrainingDoesNotFit(Reason, code="training_does_not_fit"):
    """Gigabytes (10^9 bytes): the limit, and what each memory mode needs; None if the mode was not tried."""

    limit_gb: float
    keep_gb: float | None
    recompute_gb: float | None
    stream_gb: float | None

    def sentence(self) -> str:
        tried = {"keep": self.keep_gb, "recompute": self.recompute_gb, "stream": self.stream_gb}
        shown = ", ".join(f"{mode} {needed:.1f}" for mode, needed in tried.items() if needed is not None)
        return f"training does not fit in {self.limit_gb:.1f} GB (GB needed: {shown})"
