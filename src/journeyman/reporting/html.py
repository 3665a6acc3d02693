"""The HTML report: one file without any network, the verdict first."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from journeyman.artifacts import read_rows, write_atomic
from journeyman.manifests import AdapterManifest, DecisionManifest, EvaluationManifest, PlanManifest, Rate
from journeyman.records import Example, Prediction, Verdict
from journeyman.reporting.chart import ARM_COLORS, loss_chart, success_chart


def write_report(
    plan: PlanManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    decision: DecisionManifest,
    evaluation_folder: Path,
    sealed: Path,
    out: Path,
) -> None:
    """Renders the report; answers are hostile text, so everything but our own charts is escaped."""
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            plan=plan,
            adapter=adapter,
            evaluation=evaluation,
            decision=decision,
            answers=_answers(evaluation_folder, sealed),
            success_chart=success_chart(evaluation.roles, plan.rules.min_success),
            loss_charts={name: loss_chart(one.validations) for name, one in adapter.adapters.items()},
        )
    )
    write_atomic(out, page.encode())


def environment() -> Environment:
    """The templates of this folder; everything that they show is escaped."""
    made = Environment(loader=PackageLoader("journeyman", "reporting"), autoescape=True, trim_blocks=True)
    made.filters |= {"rate": rate_text, "seconds": seconds_text, "gigabytes": gigabytes_text}
    return made


def rate_text(rate: Rate | None) -> str:
    if rate is None:
        return "not known"
    return f"{rate.passed}/{rate.n} ({rate.low:.0%}–{rate.high:.0%})"


def seconds_text(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds:.1f} s"


def gigabytes_text(gigabytes: float | None) -> str:
    return "not known" if gigabytes is None else f"{gigabytes:.2f} GB"


def _answers(folder: Path, sealed: Path) -> list[dict[str, Any]]:
    pairs: dict[str, dict[str, Any]] = defaultdict(dict)
    for prediction in read_rows(folder / "predictions.jsonl", Prediction):
        pairs[prediction.id][prediction.arm] = {"prediction": prediction}
    for verdict in read_rows(folder / "verdicts.jsonl", Verdict):
        pairs[verdict.id][verdict.arm]["verdict"] = verdict
    return [
        {"id": row.id, "role": row.role, "task": row.messages[-1].content, "arms": _in_order(pairs[row.id])}
        for row in read_rows(sealed, Example)
        if "tuned" in pairs[row.id]
    ]


def _in_order(arms: dict[str, Any]) -> dict[str, Any]:
    return {arm: arms[arm] for arm in ARM_COLORS if arm in arms}
