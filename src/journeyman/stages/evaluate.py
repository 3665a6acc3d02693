"""evaluate: the sealed rows through the very files that will serve and the engine that serves them, in several arms.

teacher: what the logs hold, or an endpoint asked anew. base: the untuned model. few-shot: the base with training rows
in its prompt. tuned: the adapter on the file that it was trained on. tuned@FILE: on another quantization that may ship.
Every endpoint of the toml is an arm as well.

All arms answer as many requests at a time as serving does. Then some rows of each arm that may ship are asked once
more, one at a time: those latencies are judged. Answers are kept one by one as they come (inference.answers), so an
interrupted evaluation goes on where it stopped, and another check does not ask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import read_rows, sha256_of, write_rows
from journeyman.config import EvaluateConfig
from journeyman.errors import Interrupted
from journeyman.inference.looks import confidence_of_look, count_look
from journeyman.inference.survey import Inputs, Survey
from journeyman.manifests import CheckRule, EvaluationManifest, PlanManifest
from journeyman.ports import Reporter
from journeyman.records import TUNED, Example, Prediction, ProbeAnswer, Verdict
from journeyman.rendering.renderer import Renderer
from journeyman.scoring.agreement import judge_agreement
from journeyman.scoring.checks import RUNS_CODE, Answer, Checks, judge
from journeyman.scoring.probing import probe_answers, probe_results
from journeyman.scoring.sandbox import Limits, sandbox_name
from journeyman.scoring.summary import Results

_DEFAULT_RULE = CheckRule(checks=["answered"])


def evaluate(
    inputs: Inputs, plan: PlanManifest, config: EvaluateConfig, renderer: Renderer, out: Path, reporter: Reporter
) -> EvaluationManifest:
    """Asks, judges and sums up.

    Raises:
        Interrupted: asked to stop; the answers so far are kept.
        EngineError: an engine or endpoint failed, or made other token ids of a prompt than training did.
    """
    rows = list(read_rows(inputs.sealed, Example))
    hashes = {name: sha256_of(path) for name, path in inputs.adapters.items()}
    gathered = Survey(inputs, rows, config, renderer, reporter).ask()
    judged = {"adapters": hashes, "rules": plan.rules.model_dump()}
    look = count_look(inputs.folder, sha256_of(inputs.sealed), judged)
    write_rows(out / "predictions.jsonl", gathered.predictions)
    write_rows(out / "timings.jsonl", gathered.timed)
    verdicts = _judge(rows, gathered.predictions, plan, config, inputs.folder, reporter)
    write_rows(out / "verdicts.jsonl", verdicts)
    results = Results(
        {row.id: row.group for row in rows}, gathered.arms, list(gathered.files),
        gathered.predictions, gathered.timed, verdicts,
    )  # fmt: skip
    of_all, of_role = (confidence_of_look(one, look) for one in (plan.rules.confidence, plan.rules.role_confidence))
    answers: list[ProbeAnswer] = []
    probes = {}
    for adapter, runs in gathered.probes.items():
        mine = [one for kind, run in runs.items() for one in probe_answers(adapter, kind, run)]
        probes[adapter] = probe_results(runs, mine)
        answers += mine
    write_rows(out / "probes.jsonl", answers)
    said = {(p.id, p.arm): (p.text, p.calls) for p in gathered.predictions}
    again = [p for p in gathered.timed if p.arm == TUNED]
    return EvaluationManifest(
        engine="llama.cpp (xllamacpp)",
        sandbox=_sandbox(plan, config),
        adapter_sha256=hashes,
        rows=len(rows),
        look=look,
        confidence=of_all,
        role_confidence=of_role,
        roles={role: results.summary(role, of_all if role == "all" else of_role) for role in _roles(rows, plan)},
        files=gathered.files,
        repeated=len(again),
        repeated_alike=sum(said[p.id, p.arm] == (p.text, p.calls) for p in again),
        probes=probes,
        judge=judge_agreement(verdicts, of_role),
        endpoints={name: f"{one.url} {one.model}" for name, one in config.endpoints.items()},
    )


def _roles(rows: Sequence[Example], plan: PlanManifest) -> list[str]:
    return ["all", *sorted({row.role for row in rows} | set(plan.rules.checks))]


def _judge(
    rows: Sequence[Example],
    predictions: Sequence[Prediction],
    plan: PlanManifest,
    config: EvaluateConfig,
    folder: Path,
    reporter: Reporter,
) -> list[Verdict]:
    by_id = {row.id: row for row in rows}
    limits, checks = Limits(unsafe=config.unsafe_exec), Checks(folder, config.judge)
    reporter.begin("judge", len(predictions), "answers")
    verdicts = []
    for number, p in enumerate(predictions, start=1):
        if reporter.stop_requested:
            raise Interrupted(f"stopped after judging {number - 1} of {len(predictions)} answers", "Run it again")
        row = by_id[p.id]
        asked = "\n\n".join(turn.content for turn in row.messages if turn.role != "system")
        answer = Answer(p.text, p.finish_reason, row.check, limits, p.calls, row.answer, row.answer_calls, asked)
        made = judge(answer, plan.rules.checks.get(p.role, _DEFAULT_RULE), checks)
        verdicts.append(
            Verdict(
                id=p.id, role=p.role, arm=p.arm, outcome=made.finding.outcome, check=made.check,
                detail=made.finding.detail, checks=dict(made.outcomes),
            )
        )  # fmt: skip
        reporter.advance(number)
    return verdicts


def _sandbox(plan: PlanManifest, config: EvaluateConfig) -> str:
    asked = {name for rule in plan.rules.checks.values() for name in (*rule.checks, *rule.weights)}
    return sandbox_name(Limits(unsafe=config.unsafe_exec)) if asked & RUNS_CODE else ""
