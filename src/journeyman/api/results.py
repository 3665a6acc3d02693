"""What each stage made, as one class a stage. `manifest` is the whole result with its types: see manifests.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from journeyman.api import html
from journeyman.api.result import Action, Result
from journeyman.api.rows import Rows
from journeyman.api.scores import SummaryRow, summary_rows
from journeyman.artifacts import either
from journeyman.errors import UsageError
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    IngestManifest,
    PlanManifest,
    RoleDecision,
    Rules,
)
from journeyman.reasons.base import Reason, ReasonRecord
from journeyman.records import EVERY_ROLE, Example, Finding, Interaction, Prediction, RegressionAnswer, Rejected, Score
from journeyman.runs import SEALED, read_result


class Logs(Result[IngestManifest]):
    """What ingest read."""

    stage = "ingest"

    @property
    def interactions(self) -> Rows[Interaction]:
        """The rows that were kept."""
        return self._rows(Interaction, "interactions.jsonl.zst")

    @property
    def rejected(self) -> Rows[Rejected]:
        """The rows that are no interactions, with reasons."""
        return self._rows(Rejected, "rejected.jsonl")

    def facts(self) -> Mapping[str, Any]:
        return {name: getattr(self.manifest, name) for name in ("read", "kept", "rejected")}


class Dataset(Result[DatasetManifest]):
    """What curate made."""

    stage = "curate"

    @property
    def findings(self) -> Rows[Finding]:
        """What the curation rules said of single rows: first of those that were dropped, then of those kept."""
        return self._rows(Finding, "dropped.jsonl", "noted.jsonl")

    @property
    def train(self) -> Rows[Example]:
        """The rows to train on."""
        return self._rows(Example, "train.jsonl")

    @property
    def val(self) -> Rows[Example]:
        """The validation rows."""
        return self._rows(Example, "val.jsonl")

    @property
    def test(self) -> Rows[Example]:
        """The held-out test set. What is tuned to it proves nothing any more."""
        return self._rows(Example, SEALED)

    @property
    def report(self) -> Path:
        """The lint report, an HTML file."""
        return self.file("lint.html")

    def facts(self) -> Mapping[str, Any]:
        splits = self.manifest.splits.values()
        counts = {name: sum(getattr(one, name) for one in splits) for name in ("train", "val", "test")}
        return {**counts, "dropped": sum(self.manifest.dropped.values())}


class Plan(Result[PlanManifest]):
    """What plan estimated, and the rules that it fixed."""

    stage = "plan"

    @property
    def rules(self) -> Rules:
        """The rules of the decision."""
        return self.manifest.rules

    @property
    def warnings(self) -> list[Reason]:
        """What may go wrong, by code."""
        return _typed(self.manifest.warnings)

    @property
    def errors(self) -> list[Reason]:
        """What is wrong, by code: with an error, `train` raises NoGo."""
        return _typed(self.manifest.errors)

    def facts(self) -> Mapping[str, Any]:
        plan = self.manifest
        return {
            "steps": plan.total_steps,
            "tokens": plan.total_tokens,
            "estimated seconds": round(plan.estimated_train_s),
            "estimated GB": round(plan.estimated_train_memory_gb, 1),
            "go": plan.is_go,
        }


class Adapter(Result[AdapterManifest]):
    """What train made."""

    stage = "train"

    def facts(self) -> Mapping[str, Any]:
        trained = self.manifest.adapters
        losses = {name: "unknown" if one.best_loss is None else f"{one.best_loss:.4f}" for name, one in trained.items()}
        best = losses[EVERY_ROLE] if [*losses] == [EVERY_ROLE] else losses
        return {"steps": sum(one.steps for one in trained.values()), "best validation loss": best}


class Evaluation(Result[EvaluationManifest]):
    """What evaluate found."""

    stage = "evaluate"

    @property
    def predictions(self) -> Rows[Prediction]:
        """Every answer of every arm."""
        return self._rows(Prediction, "predictions.jsonl")

    @property
    def scores(self) -> Rows[Score]:
        """What the checks said of every answer."""
        return self._rows(Score, either(self.folder, "scores.jsonl", "verdicts.jsonl").name)

    @property
    def regressions(self) -> Rows[RegressionAnswer]:
        """The regression suite, before and after tuning."""
        return self._rows(RegressionAnswer, either(self.folder, "regressions.jsonl", "probes.jsonl").name)

    @property
    def summary(self) -> Rows[SummaryRow]:
        """One row for each role and arm: success with its interval, and latency."""
        return Rows(SummaryRow, lambda: summary_rows(self.manifest))

    def facts(self) -> Mapping[str, Any]:
        pooled = self.manifest.roles[EVERY_ROLE].arms
        rates = {arm: one.success for arm, one in pooled.items()}
        shown = {arm: "unknown" if rate is None else f"{rate.passed}/{rate.n}" for arm, rate in rates.items()}
        return {"rows": self.manifest.rows, **shown}

    def _repr_html_(self) -> str:
        return self.summary._repr_html_()


class RoleVerdict:
    """The decision about one role.

    Attributes:
        manifest: all of it, typed.
    """

    def __init__(self, role: str, manifest: RoleDecision) -> None:
        self.role, self.manifest = role, manifest

    @property
    def verdict(self) -> str:
        """deploy, iterate, abort or insufficient."""
        return self.manifest.verdict

    @property
    def reasons(self) -> list[Reason]:
        """What each rule found, by code; `failed` has those that stand against a deployment."""
        return _typed([one.reason for one in self.manifest.reasons])

    @property
    def failed(self) -> list[Reason]:
        """The reasons of rules that were not met, or could not be decided."""
        return _typed([one.reason for one in self.manifest.reasons if one.outcome != "pass"])

    @property
    def next_steps(self) -> list[Reason]:
        """What to try next."""
        return _typed(self.manifest.next_steps)

    def __repr__(self) -> str:
        reasons = "; ".join(one.sentence() for one in self.failed)
        return f"<{self.role}: {self.verdict}{f' ({reasons})' if reasons else ''}>"

    def _repr_html_(self) -> str:
        rows = [(one.rule, one.outcome, one.reason.sentence()) for one in self.manifest.reasons]
        return html.table(("rule", "outcome", "reason"), rows, f"{self.role}: {self.verdict}")


class Decision(Result[DecisionManifest]):
    """What decide concluded."""

    stage = "decide"

    @property
    def verdict(self) -> str:
        """Of all roles together: deploy, iterate, abort or insufficient."""
        return self.manifest.verdict

    @property
    def roles(self) -> dict[str, RoleVerdict]:
        """Role → its verdict and reasons."""
        return {name: RoleVerdict(name, one) for name, one in self.manifest.roles.items()}

    @property
    def deployed_roles(self) -> list[str]:
        """The roles that the evidence allows to deploy."""
        return self.manifest.deployed_roles

    @property
    def reasons(self) -> dict[str, list[Reason]]:
        """Role → why it may not be deployed yet; empty for a role that may."""
        return {name: one.failed for name, one in self.roles.items()}

    @property
    def report(self) -> Path:
        """The report, an HTML file."""
        return self.file("report.html")

    def facts(self) -> Mapping[str, Any]:
        return {"verdict": self.verdict, **{name: one.verdict for name, one in self.roles.items()}}

    def _repr_html_(self) -> str:
        rows = [
            (name, one.verdict, "; ".join(why.sentence() for why in one.failed)) for name, one in self.roles.items()
        ]
        return html.table(("role", "verdict", "why"), rows, f"Verdict: {self.verdict}")


class Bundle(Result[BundleManifest]):
    """What export wrote: the files to deploy."""

    stage = "export"

    def facts(self) -> Mapping[str, Any]:
        return {"roles": ", ".join(self.manifest.roles)}


_KINDS: Mapping[str, Callable[..., Result[Any]]] = {
    kind.stage: kind for kind in (Logs, Dataset, Plan, Adapter, Evaluation, Decision, Bundle)
}


def result_of(folder: Path, stage: str, action: Action | None = None, seconds: float = 0.0) -> Result[Any]:
    """The result of a finished stage, as its class.

    Raises:
        InputError: it has not been run, or its manifest is damaged.
        UsageError: there is no such stage.
    """
    if stage not in _KINDS:
        raise UsageError(f"unknown stage {stage!r}", f"One of: {', '.join(_KINDS)}")
    return _KINDS[stage](folder, read_result(folder, stage)[1], action, seconds)


def _typed(records: list[ReasonRecord]) -> list[Reason]:
    return [one.reason() for one in records]
