"""What the user expects, compared with what is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons import expectations as why

_TOLERANCE = 1.1
_ERROR = 2.0
EXPECTATIONS: Mapping[str, type[why.Expected]] = {
    "steps": why.ExpectedSteps,
    "steps_per_epoch": why.ExpectedStepsPerEpoch,
    "trainable_parameters": why.ExpectedTrainable,
    "base_parameters": why.ExpectedParameters,
    "base_gb": why.ExpectedBaseSize,
    "train_memory_gb": why.ExpectedTrainMemory,
    "serve_memory_gb": why.ExpectedServeMemory,
    "train_hours": why.ExpectedTrainTime,
    "train_rows": why.ExpectedTrainRows,
    "test_rows": why.ExpectedTestRows,
    "disk_gb": why.ExpectedDisk,
}
"""Key of plan.expect → what it is compared as."""


def expectations(facts: Facts) -> Iterator[Found]:
    """Figures that differ by more than a tenth; an error if one is at least twice the other."""
    for key, expected in facts.expected.items():
        actual = facts.figures.get(key)
        if actual is None:
            continue
        reason = EXPECTATIONS[key](expected, actual)
        if reason.factor > _TOLERANCE:
            yield Found(reason, is_error=reason.factor >= _ERROR)
