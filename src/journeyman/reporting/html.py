"""The HTML report: one file that needs no network, with the verdict first."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from journeyman.artifacts import either, read_rows, write_atomic
from journeyman.foreign import named, plain_lines
from journeyman.manifests import AdapterManifest, DecisionManifest, EvaluationManifest, PlanManifest, Rate
from journeyman.records import BASE, EVERY_ROLE, TEACHER, Example, Prediction, RegressionAnswer, Score
from journeyman.reporting.charts import latency_chart, loss_chart, memory_chart, pairs_chart, success_chart
from journeyman.reporting.differences import marked_pair

_MOST_ANSWERS = 1000
_FIRST = {"fail": 0, "unscored": 1, "pass": 2}


@dataclass(frozen=True)
class Evidence:
    """The content of a report.

    Attributes:
        lineage: (stage, file, SHA-256) of every file from the logs on.
    """

    plan: PlanManifest
    adapter: AdapterManifest
    evaluation: EvaluationManifest
    decision: DecisionManifest
    lineage: Sequence[tuple[str, str, str]]


def write_report(evidence: Evidence, evaluated: Path, trained: Path, test_rows: Path, out: Path) -> None:
    """Renders report.html in `out`. Answers are untrusted text, so everything except our own charts is escaped.

    Args:
        evaluated, trained: the folders of those stages.
        test_rows: the held-out test set.
    """
    evaluation, rules = evidence.evaluation, evidence.plan.rules
    ships = evidence.decision.ships
    pooled = evaluation.roles[EVERY_ROLE]
    answers = _answers(evaluated, test_rows, ships)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            **vars(evidence),
            ships=ships,
            arms=list(pooled.arms),
            answers=answers[:_MOST_ANSWERS],
            left_out=max(0, len(answers) - _MOST_ANSWERS),
            lost_answers=[
                one
                for one in read_rows(either(evaluated, "regressions.jsonl", "probes.jsonl"), RegressionAnswer)
                if _lost(one)
            ],
            success_chart=success_chart(evaluation.roles, rules.min_success),
            pairs_chart=pairs_chart(evaluation.roles, ships),
            latency_chart=latency_chart(
                {arm: (one.speed, one.under_load) for arm, one in pooled.arms.items()}, rules.max_mean_latency_s
            ),
            memory_chart=memory_chart(evaluation.files, evidence.adapter.peak_memory_gb, rules.max_memory_gb),
            loss_charts={
                name: loss_chart(_training_losses(trained / one.folder), one.validations)
                for name, one in evidence.adapter.adapters.items()
            },
        )
    )
    write_atomic(out / "report.html", page.encode())


def environment() -> Environment:
    """The templates of this folder. All values are escaped, including control characters and direction marks."""
    loader = PackageLoader("journeyman", "reporting")
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, finalize=_visible)
    made.globals["EVERY_ROLE"] = EVERY_ROLE
    made.filters |= {"named": named, "rate": rate_text, "seconds": seconds_text, "gigabytes": gigabytes_text}
    return made


def _visible(value: Any) -> Any:
    """A template's value with control characters made visible, before HTML is escaped; our own markup is kept."""
    if isinstance(value, Markup):
        return Markup(plain_lines(value))
    return plain_lines(value) if isinstance(value, str) else value


def rate_text(rate: Rate | None) -> str:
    if rate is None:
        return "not known"
    return f"{rate.passed}/{rate.n} ({rate.low:.0%}–{rate.high:.0%})"


def seconds_text(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds:.1f} s"


def gigabytes_text(gigabytes: float | None) -> str:
    return "not known" if gigabytes is None else f"{gigabytes:.2f} GB"


def _lost(one: RegressionAnswer) -> bool:
    return (one.base_passes and not one.tuned_passes) or (one.base_ends and not one.tuned_ends)


def _training_losses(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) pairs from a training run's metrics."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _answers(folder: Path, test_rows: Path, ships: str) -> list[dict[str, Any]]:
    """Each test row with the arms' answers, failures first; differences of teacher and shipped arm are marked."""
    answered: dict[str, dict[str, Any]] = defaultdict(dict)
    for prediction in read_rows(folder / "predictions.jsonl", Prediction):
        answered[prediction.id][prediction.arm] = {"prediction": prediction, "shown": prediction.text}
    for score in read_rows(either(folder, "scores.jsonl", "verdicts.jsonl"), Score):
        answered[score.id][score.arm]["score"] = score
    made = []
    for row in read_rows(test_rows, Example):
        arms = answered[row.id]
        if ships not in arms:
            continue
        if TEACHER in arms:
            texts = (arms[one]["prediction"].text for one in (TEACHER, ships))
            arms[TEACHER]["shown"], arms[ships]["shown"] = marked_pair(*texts)
        outcome = arms[ships]["score"].outcome
        before = arms[BASE]["score"].outcome if BASE in arms else ""
        against = {("pass", "fail"): "won", ("fail", "pass"): "lost"}.get((outcome, before), "")
        order = [TEACHER, ships, *(arm for arm in arms if arm not in (TEACHER, ships))]
        made.append(
            {
                "id": row.id, "role": row.role, "task": row.messages[-1].content, "outcome": outcome,
                "against": against, "arms": {arm: arms[arm] for arm in order if arm in arms},
            }
        )  # fmt: skip
    return sorted(made, key=lambda one: _FIRST[one["outcome"]])
