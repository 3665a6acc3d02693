"""Which parts of the training rows are tuned on: those that fit into the budget, the smallest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.manifests import PlanManifest
from journeyman.reasons.probing import PartLeftOut

SHARES = {"eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2}
"""Name of a part → its share of the training rows; each contains the smaller ones."""


@dataclass(frozen=True)
class PartCost:
    """A part of the training rows. Seconds are estimates."""

    name: str
    rows: int
    train_s: float
    answer_s: float

    @property
    def seconds(self) -> float:
        return self.train_s + self.answer_s


def train_seconds(plan: PlanManifest, share: float) -> float:
    """The time to train on a share of the tokens, from the plan's time for all: validations take as long as there."""
    whole = plan.train_time
    if whole is None:
        return plan.estimated_train_s * share
    return (whole.load_s or 0.0) + (whole.seconds - whole.validation_s) * share + whole.validation_s


def affordable(costs: Sequence[PartCost], budget_s: float) -> tuple[list[str], list[PartLeftOut]]:
    """The parts whose times, added up in order, stay within the budget, and why the others are left out."""
    kept: list[str] = []
    left_out: list[PartLeftOut] = []
    total = 0.0
    for one in costs:
        total += one.seconds
        if total <= budget_s and not left_out:
            kept.append(one.name)
        else:
            left_out.append(PartLeftOut(one.name, one.rows, total, budget_s))
    return kept, left_out
