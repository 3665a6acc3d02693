"""What a probe found, as it is on disk: probe.json."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.manifests import Manifest, RoleSummary
from journeyman.reasons import ReasonRecord

Advice = Literal["prompt", "tune", "more_data", "stop", "check", "cannot_tell"]


class Part(Manifest):
    """A part of the training rows that an adapter was trained on."""

    name: str = Field(description="eighth, quarter or half")
    arm: str = Field(description="its name among the arms")
    rows: dict[str, int] = Field(description="role, or 'all' → training rows")
    losses: dict[str, float] = Field(description="'all' or role → the adapter's best validation loss, if it has one")
    steps: int
    train_s: float


class Prediction(Manifest):
    """The success of a run on all training rows: an interval, and what is most likely."""

    low: float
    likely: float
    high: float


class Recommendation(Manifest):
    advice: Advice
    leans: Advice | None = Field(
        None, description="if it cannot tell: what is more likely than the rest; None: nothing"
    )
    reasons: list[ReasonRecord] = Field(description="the rule that decided comes first")


class Chosen(Manifest):
    """Which parts fit into the budget; kept, so that an interrupted probe goes on with the same ones."""

    inputs: str = Field(description="hash of the inputs of the probe")
    kept: list[str]
    left_out: list[ReasonRecord]


class ProbedRole(Manifest):
    """One role, or 'all' of them."""

    summary: RoleSummary = Field(description="every arm's result on the validation rows")
    train_rows: int
    confidence: float = Field(description="of all intervals")
    similarity: float | None = Field(description="median, from 0 to 1, of the tasks whose copied answers pass")
    predicted: Prediction | None = Field(description="None: too little to predict from")
    recommendation: Recommendation


class ProbeRecord(Manifest):
    """probe.json."""

    format: Literal[1] = 1
    created: str = Field(description="time, in ISO 8601")
    inputs: dict[str, str] = Field(description="setting or input → its value or hash; others make the probe stale")
    threshold: float = Field(description="decide.min_success: the share of rows that must pass")
    budget_s: float = Field(description="for tuning on parts of the rows and their answers")
    shown: dict[str, int] = Field(
        description="role → examples in its few-shot prompt; a role without any has no such arm"
    )
    parts: list[Part]
    left_out: list[ReasonRecord] = Field(description="parts that did not fit into the budget")
    rows: int = Field(description="validation rows that were asked")
    of_rows: int = Field(description="validation rows that there are")
    seconds: float = Field(description="that the last call took; answers and adapters of earlier calls were there")
    roles: dict[str, ProbedRole] = Field(description="role, or 'all' → what was found")
