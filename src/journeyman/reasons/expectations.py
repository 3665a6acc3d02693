"""Reasons of the plan for what the user expected and what is: see plan.expect in the config file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class Expected(Reason):
    """The base of these reasons. `what`: the figure and its unit, a format string for both values."""

    what: ClassVar[str]
    shown: ClassVar[str] = "{:,.0f}"
    rule: ClassVar[str] = ""
    """How the figure comes about."""
    expected: float
    actual: float

    @property
    def factor(self) -> float:
        """How many times too large or too small the expectation is; infinity if one of them is 0."""
        low, high = sorted((self.expected, self.actual))
        return high / low if low > 0 else float("inf")

    def what_to_do(self) -> str:
        return (f"It is {self.rule}. " if self.rule else "") + "Correct the expectation, or the settings"

    def sentence(self) -> str:
        expected, actual = self.shown.format(self.expected), self.shown.format(self.actual)
        return f"{self.what}: {expected} expected, {actual} is right"


@dataclass(frozen=True)
class ExpectedSteps(Expected, code="expected_steps"):
    what = "optimizer steps of the run"
    rule = "rows / (batch size × gradient accumulation), rounded up, times epochs"


@dataclass(frozen=True)
class ExpectedStepsPerEpoch(Expected, code="expected_steps_per_epoch"):
    what = "optimizer steps of an epoch"
    rule = "rows / (batch size × gradient accumulation), rounded up"


@dataclass(frozen=True)
class ExpectedTrainable(Expected, code="expected_trainable_parameters"):
    what = "trainable parameters"
    rule = "rank × (inputs + outputs), summed over all matrices that the adapter changes"


@dataclass(frozen=True)
class ExpectedParameters(Expected, code="expected_base_parameters"):
    what = "parameters of the base"


@dataclass(frozen=True)
class ExpectedBaseSize(Expected, code="expected_base_gb"):
    what = "size of the base's weights in training"
    rule = "parameters × bytes of a number: 4 in float32, 2 in bfloat16"
    shown = "{:,.1f} GB"


@dataclass(frozen=True)
class ExpectedTrainMemory(Expected, code="expected_train_memory_gb"):
    what = "memory of training"
    shown = "{:,.1f} GB"


@dataclass(frozen=True)
class ExpectedServeMemory(Expected, code="expected_serve_memory_gb"):
    what = "memory of serving"
    shown = "{:,.1f} GB"


@dataclass(frozen=True)
class ExpectedTrainTime(Expected, code="expected_train_hours"):
    what = "time of training"
    shown = "{:,.2f} h"


@dataclass(frozen=True)
class ExpectedTrainRows(Expected, code="expected_train_rows"):
    what = "training rows"


@dataclass(frozen=True)
class ExpectedTestRows(Expected, code="expected_test_rows"):
    what = "test rows"


@dataclass(frozen=True)
class ExpectedDisk(Expected, code="expected_disk_gb"):
    what = "space on the disk"
    shown = "{:,.1f} GB"
