"""What a probe predicted, and what the evaluation found: how far such a prediction may be trusted here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from journeyman.manifests import EvaluationManifest, Rate
from journeyman.probing.record import Prediction, ProbeRecord
from journeyman.superseded import changed_keys

_OF_ONE_ONLY = {"stage version", "probe version", "budget", "03-plan", "04-adapter"}


@dataclass(frozen=True)
class Compared:
    """A role's success as predicted from the validation rows, and as found on the held-out rows.

    Attributes:
        consistent: the two intervals have a value in common.
    """

    predicted: Prediction
    found: Rate

    @property
    def consistent(self) -> bool:
        return self.predicted.low <= self.found.high and self.found.low <= self.predicted.high


def predicted_and_found(record: ProbeRecord, evaluation: EvaluationManifest) -> Mapping[str, Compared]:
    """'all' or role → both; only roles for which both are known. Compare only if both are of the same settings."""
    compared = {}
    for role, one in record.roles.items():
        found = evaluation.roles[role].tuned.success if role in evaluation.roles else None
        if one.predicted is not None and found is not None:
            compared[role] = Compared(one.predicted, found)
    return compared


def differing(record: ProbeRecord, evaluated: Mapping[str, str]) -> list[str]:
    """The names of the settings and inputs that the probe and the evaluation do not share.

    Args:
        evaluated: the recorded inputs of the plan, the training and the evaluation together.
    """
    return [key for key in changed_keys(record.inputs, evaluated) if key not in _OF_ONE_ONLY]
