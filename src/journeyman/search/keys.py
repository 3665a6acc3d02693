"""What a trial and a search depend on, as hashes: by them, what was recorded is found again, or is not used."""

from __future__ import annotations

from typing import Any

from journeyman.artifacts import hash_of
from journeyman.config import TrainConfig
from journeyman.inference.engines import engine_of
from journeyman.manifests import PlanManifest
from journeyman.runs import Run, read_result
from journeyman.stage_settings import of_trials
from journeyman.trials.rows import TrialRows


def inputs_of(run: Run, seed: int) -> str:
    """Of a search: all but its budget."""
    return hash_of({**_common(run), "train": run.config.train.model_dump(mode="json"), "seed": seed})


def trial_key(run: Run, config: TrainConfig, rows: TrialRows) -> str:
    """Of one trial."""
    return hash_of(
        {
            **_common(run),
            "train": config.model_dump(mode="json"),
            "rows": [[row.id for row in of] for of in (rows.train, rows.val)],
        }
    )


def _common(run: Run) -> dict[str, Any]:
    """Base, template, rows, checks, and the engine with its settings and the files that it serves."""
    files = read_result(run.root, "curate")[0].files
    rules = run.result("plan", PlanManifest).rules.checks
    return {
        "inputs": dict(of_trials(run)),
        "rows": {name: files.get(name) for name in ("train.jsonl", "val.jsonl")},
        "checks": {role: rule.model_dump(mode="json") for role, rule in rules.items()},
        "evaluate": run.config.evaluate.model_dump(mode="json"),
        "engine": engine_of(run.config.evaluate, run.root).model_dump(mode="json"),
    }
