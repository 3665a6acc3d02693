"""What the stages before `export` made, as a bundle records it."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.manifests import (
    AdapterManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    PlanManifest,
    ServedFile,
)


@dataclass(frozen=True)
class Results:
    """The results of one run, from the dataset to the decision."""

    plan: PlanManifest
    dataset: DatasetManifest
    adapter: AdapterManifest
    evaluation: EvaluationManifest
    decision: DecisionManifest

    @property
    def file(self) -> ServedFile:
        """The file of the base that ships, as it was evaluated."""
        return self.evaluation.files[self.decision.ships]
