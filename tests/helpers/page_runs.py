"""Run folders for the page, written without running anything: as many rows and points of curves as wanted."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from journeyman.artifacts import hash_of_file, write_rows
from journeyman.engine_identity import EngineIdentity
from journeyman.lineage import files_below, manifest_data, result_hash, write_manifest
from journeyman.manifests import (
    AdapterManifest,
    ArmSummary,
    CheckRule,
    DatasetManifest,
    DecisionManifest,
    Durations,
    EvaluationManifest,
    IngestManifest,
    LogGroup,
    PlanManifest,
    Rate,
    Repetition,
    RoleDecision,
    RoleSummary,
    RuleCount,
    RuleResult,
    Rules,
    ServedFile,
    SplitCounts,
    Stamp,
    TrainedAdapter,
    ValidationPoint,
)
from journeyman.pipeline import stage_named
from journeyman.reasons.base import Text
from journeyman.reasons.deciding import SuccessSeen
from journeyman.records import Example, Finding, Interaction, Message, Prediction, Score
from journeyman.runs import PLACES, SEALED
from journeyman.stats.rates import wilson
from journeyman.supervision.heartbeat import PROGRESS, Progress

ROLES = ("coder", "tester")
ARMS = ("teacher", "base", "tuned")
_PASS = {"teacher": 0.97, "base": 0.3, "tuned": 0.8}


def write_run(
    root: Path, rows: int = 6, points: int = 12, findings: int = 8, text: str = "", until: str = "decide"
) -> Path:
    """A run folder.

    Args:
        rows: of the test set, each answered by three arms.
        points: steps of training.
        findings: rows that curate dropped or noted.
        text: is in prompts, answers, reasons and log lines.
        until: its last stage.
    """
    root.mkdir(parents=True)
    (root / "journeyman.toml").write_text('[base]\nmodel = "base.gguf"\n')
    (root / "journeyman.log").write_text(f"2026-01-01 00:00:00 01 ingest made {text}\n")
    stages = list(PLACES)
    for stage in stages[: stages.index(until) + 1]:
        folder = root / PLACES[stage].folder
        folder.mkdir()
        _WRITERS[stage](folder, rows, points, findings, text)
    return root


def write_progress(root: Path, **changes: Any) -> None:
    """What a process that trains reports; see Progress."""
    now = time.time()
    values = {
        "pid": 1, "process_started": 0.0, "host": "host", "command": "journeyman run", "stage": "train",
        "task": "train", "done": 300.0, "total": 1000.0, "unit": "tokens", "note": "loss 0.5", "begun": now - 60,
        "begun_done": 0.0, "moved": now, "beat": now,
    }  # fmt: skip
    (root / PROGRESS).write_text(Progress.model_validate(values | changes).model_dump_json())


def finish(root: Path, stage: str, result: BaseModel) -> None:
    """Writes the manifest of a stage whose files are there."""
    folder = root / PLACES[stage].folder
    kind = stage_named(stage)
    inputs = {"stage version": str(kind.version), "base": "0", f"{stage}.setting": str(root.name)}
    for name in kind.needs:
        before = root / PLACES[name].folder
        data = manifest_data(before / "manifest.json", name)
        inputs[before.name] = result_hash(data, kind.parts.get(name, ()))
    stamp = Stamp(
        stage=stage, version=1, journeyman="0", fingerprint="0", inputs=inputs, created="2026-01-02T03:04:05+00:00",
        files={name: hash_of_file(folder / name) for name in files_below(folder)},
    )  # fmt: skip
    write_manifest(folder, stamp, result)


def _ingest(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    logged = (
        Interaction(
            id=f"log.jsonl:{number}", source=f"log.jsonl:{number}", role=ROLES[number % 2],
            messages=_prompt(number, text), output=f"logged answer {number} {text}",
        )
        for number in range(findings)
    )  # fmt: skip
    write_rows(folder / "interactions.jsonl.zst", logged)
    group = LogGroup(rows=findings, successes=0, durations=Durations(n=0, mean_s=None, median_s=None, p95_s=None))
    result = IngestManifest(
        read=findings, kept=findings, rejected=0, reasons=[], redacted={}, total=group, by_role={}, by_teacher={}
    )
    finish(folder.parent, "ingest", result)


def _curate(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    (folder / "sealed").mkdir()
    write_rows(folder / SEALED, (_example(number, text) for number in range(rows)))
    write_rows(folder / "dropped.jsonl", (_finding(n, "failed", "dropped", text) for n in range(findings // 2)))
    write_rows(
        folder / "noted.jsonl", (_finding(n, "misrouted", "noted", text) for n in range(findings // 2, findings))
    )
    splits = {role: SplitCounts(train=10, val=1, test=rows // 2, effective_test=rows / 2) for role in ROLES}
    repetition = Repetition(
        rows=1, distinct_tasks=1, distinct_ids=1, random_split_leaks=0, worst_random_split_leaks=0, random_split_tests=0
    )
    result = DatasetManifest(
        rows_in=rows + findings, kept=rows, dropped={"failed": findings // 2}, splits=splits, train_tokens=1,
        rules={"failed": RuleCount(what="the call failed", action="drop", dropped={"coder": findings // 2}, noted={})},
        longest_row_tokens=1, system_prompts={}, teachers={}, lengths=None, repetition=repetition, routing=None,
        credit=[], leak_check=Text("no leak").record(), notes=[Text(f"a note {text}").record()],
    )  # fmt: skip
    finish(folder.parent, "curate", result)


def _plan(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    rules = Rules(
        max_mean_latency_s=12, min_success=0.7, max_memory_gb=2, stretch_mean_latency_s=10, stretch_success=0.9,
        confidence=0.95, role_confidence=0.975, margin=None, regression_margin=0.1, files=["base.gguf"],
        checks={role: CheckRule(checks=["exact"]) for role in ROLES},
    )  # fmt: skip
    result = PlanManifest(
        base_path="/models/base.gguf", base_sha256="0", base_parameters=135_000_000, trainable_parameters=4_000_000,
        steps_per_epoch=points, total_steps=points, tokens_per_epoch=1000, total_tokens=1000, precision="float32",
        matrix_gflops=50, memory="keep", pack_tokens=512, group_tokens=512, estimated_train_s=100,
        estimated_train_memory_gb=2, estimated_serve_memory_gb=None, rules=rules, power=dict.fromkeys(ROLES, 0.8),
        power_rate=0.9, warnings=[Text(f"a warning {text}").record()],
    )  # fmt: skip
    finish(folder.parent, "plan", result)


def write_metrics(path: Path, points: int, start: int = 1) -> None:
    """Appends the lines of these steps to a metrics.jsonl; one step in a hundred is validated."""
    random.seed(start)
    with path.open("a") as file:
        for step in range(start, start + points):
            loss = 0.3 + math.exp(-step / (points / 5)) + random.random() * 0.1
            rate = 2e-4 * (1 - step / (start + points))
            file.write(json.dumps({"step": step, "loss": loss, "learning_rate": rate, "gradient_norm": loss}) + "\n")
            if step % 100 == 0:
                file.write(json.dumps({"step": step, "validation_loss": loss + 0.02}) + "\n")


def _train(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    write_metrics(folder / "metrics.jsonl", points)
    adapter = TrainedAdapter(
        folder="", steps=points, total_steps=points, stopped_early=False, best_step=points, train_s=120, tokens=1000,
        validations=[ValidationPoint(step=points, loss=0.4)],
    )  # fmt: skip
    result = AdapterManifest(
        base_sha256="0", trainable_parameters=4_000_000, adapters={"all": adapter}, precision="float32",
        peak_memory_gb=1.8,
    )  # fmt: skip
    finish(folder.parent, "train", result)


def _evaluate(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    random.seed(7)
    outcomes = [{arm: "pass" if random.random() < _PASS[arm] else "fail" for arm in ARMS} for _ in range(rows)]
    write_rows(folder / "predictions.jsonl", _predictions(rows, text))
    write_rows(folder / "scores.jsonl", _scores(outcomes, text))
    roles = {
        role: _role_summary([one for number, one in enumerate(outcomes) if role in ("all", ROLES[number % 2])])
        for role in ("all", *ROLES)
    }
    served = ServedFile(
        path="/models/base.gguf", sha256="0", size_gb=0.1, load_s=1, warm_up_s=1, peak_memory_gb=0.3,
        identical_prompts=rows,
    )  # fmt: skip
    result = EvaluationManifest(
        engine=EngineIdentity(name="fake"), sandbox=None, adapter_sha256={"all": "0"}, rows=rows, look=1,
        confidence=0.95, role_confidence=0.975, roles=roles, files={"tuned": served}, repeated=0, repeated_alike=0,
        regressions={}, judge=[], endpoints={},
    )  # fmt: skip
    finish(folder.parent, "evaluate", result)


def _decide(folder: Path, rows: int, points: int, findings: int, text: str) -> None:
    seen = SuccessSeen(passed=1, rows=2, low=0.1, high=0.9, effective=2.0, unscored=0, asked=0.7)
    reason = RuleResult(rule="success", outcome="pass", reason=seen.record())
    one = RoleDecision(
        verdict="deploy", stretch=False, reasons=[reason], rows_needed=None, next_steps=[Text(f"try {text}").record()]
    )
    result = DecisionManifest(
        verdict="deploy", roles=dict.fromkeys(("all", *ROLES), one), deployed_roles=[*ROLES], ships="tuned", others={},
        notes=[],
    )  # fmt: skip
    finish(folder.parent, "decide", result)


def _prompt(number: int, text: str) -> list[Message]:
    return [
        Message(role="system", content="You answer."),
        Message(role="user", content=f"Task: question {number} {text}" + " with some more words" * 20),
    ]


def _example(number: int, text: str) -> Example:
    return Example(
        id=f"log.jsonl:{number}", role=ROLES[number % 2], messages=_prompt(number, text), answer="yes",
        group=str(number), prompt_tokens=9, answer_tokens=1,
    )  # fmt: skip


def _finding(number: int, rule: str, action: Any, text: str) -> Finding:
    return Finding(
        id=f"log.jsonl:{number}", source=f"log.jsonl:{number}", role=ROLES[number % 2], rule=rule, action=action,
        reason=Text(f"why {number} {text}").record(), task=f"Task: question {number} {text}", answer="the end",
    )  # fmt: skip


def _predictions(rows: int, text: str) -> Iterable[Prediction]:
    for arm in ARMS:
        for number in range(rows):
            yield Prediction(
                id=f"log.jsonl:{number}", role=ROLES[number % 2], arm=arm, finish_reason="stop", latency_s=1.5,
                text=f"{arm} answers {number} {text}\nand more", first_token_s=0.1, prompt_tokens=9, answer_tokens=4,
            )  # fmt: skip


def _scores(outcomes: list[dict[str, str]], text: str) -> Iterable[Score]:
    for arm in ARMS:
        for number, found in enumerate(outcomes):
            yield Score.model_validate({
                "id": f"log.jsonl:{number}", "role": ROLES[number % 2], "arm": arm, "outcome": found[arm],
                "check": "exact", "checks": {"exact": found[arm]}, "reason": f"reason {number} {text}",
            })  # fmt: skip


def _role_summary(outcomes: list[dict[str, str]]) -> RoleSummary:
    arms = {}
    for arm in ARMS:
        passed = sum(one[arm] == "pass" for one in outcomes)
        low, high = wilson(passed, len(outcomes), 0.975) if outcomes else (0.0, 1.0)
        rate = Rate(passed=passed, n=len(outcomes), low=low, high=high, effective_n=len(outcomes))
        arms[arm] = ArmSummary(success=rate if outcomes else None, unscored=0)
    return RoleSummary(rows=len(outcomes), groups=len(outcomes), arms=arms, versus={"tuned": {}})


_WRITERS = {
    "ingest": _ingest, "curate": _curate, "plan": _plan, "train": _train, "evaluate": _evaluate, "decide": _decide,
}  # fmt: skip
