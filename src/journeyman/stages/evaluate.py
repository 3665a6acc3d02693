"""evaluate: puts the held-out test set to several arms, through the engine and the exact files that will serve.

teacher: the logged answers, or an endpoint that is asked again. base: the untuned model. few-shot: the base with
training rows in its prompt. tuned: the adapter on the file that it was trained on. tuned@FILE: the adapter on another
quantization that may ship, tuned@server on a server, tuned@merged-FORMAT in the weights of a file. Without a file that
was trained on, the first thing that may ship takes its place. Every endpoint in the config file is an arm too.

All arms answer as many concurrent requests as in serving. Then some rows of each arm that may ship are repeated one at
a time; the latency rule uses these. Every answer is stored in the response cache as it arrives, so an interrupted
evaluation resumes where it stopped, and a change of checks asks nothing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import hash_of_file, read_rows, write_rows
from journeyman.config import EvaluateConfig
from journeyman.evidence import LOOKS, RESPONSES, recorded
from journeyman.inference.arm_runner import ArmRunner, Inputs, RunningEngine
from journeyman.inference.engines import running_engine
from journeyman.inference.sequential_testing import confidence_of_look, count_look
from journeyman.manifests import EvaluationManifest, PlanManifest, Sandbox
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, TUNED, Example, RegressionAnswer, Score
from journeyman.rendering.renderer import Renderer
from journeyman.scoring.agreement import judge_agreement
from journeyman.scoring.checks import RUNS_CODE, own_files
from journeyman.scoring.contracts import Limits
from journeyman.scoring.judging import judge_rows
from journeyman.scoring.regressions import regression_answers, regression_results
from journeyman.scoring.sandbox import sandbox_of
from journeyman.scoring.summary import Results

_WHAT_DECIDES = {
    "temperature", "max_new_tokens", "context", "quantizations", "server", "endpoints", "judge", "check_timeout_s",
    "unsafe_exec",
}  # fmt: skip
"""Keys of [evaluate] that could be varied until the rows pass. Other changes that matter show in the scores."""


def evaluate(
    inputs: Inputs, plan: PlanManifest, config: EvaluateConfig, renderer: Renderer, out: Path, reporter: Reporter,
    running_engine: RunningEngine = running_engine,
) -> EvaluationManifest:  # fmt: skip
    """Gets the answers, scores them and summarizes the results.

    Args:
        running_engine: starts the serving engine of a file.

    Raises:
        Interrupted: asked to stop; the answers so far are kept.
        EngineError: an engine or endpoint failed, or an engine's token ids of a prompt differ from those of training.
    """
    rows = list(read_rows(inputs.sealed, Example))
    hashes = {name: hash_of_file(path) for name, path in inputs.adapters.items()}
    gathered = ArmRunner(inputs, rows, config, renderer, reporter, running_engine).ask()
    write_rows(out / "predictions.jsonl", gathered.predictions)
    write_rows(out / "timings.jsonl", gathered.timed)
    scores = judge_rows(rows, gathered.predictions, plan.rules.checks, config, inputs.folder, reporter)
    judged = {"adapters": hashes, **_judged(plan, config, inputs.folder, scores)}
    test_sha256 = hash_of_file(inputs.sealed)
    look = count_look(inputs.folder, test_sha256, judged)  # before anybody can see the scores
    write_rows(out / "scores.jsonl", scores)
    results = Results(
        {row.id: row.group for row in rows}, gathered.arms, list(gathered.files),
        gathered.predictions, gathered.timed, scores,
    )  # fmt: skip
    of_all, of_role = (
        confidence_of_look(one, look.number) for one in (plan.rules.confidence, plan.rules.role_confidence)
    )
    answers: list[RegressionAnswer] = []
    regressions = {}
    for adapter, runs in gathered.regressions.items():
        mine = [one for kind, run in runs.items() for one in regression_answers(adapter, kind, run)]
        regressions[adapter] = regression_results(runs, mine)
        answers += mine
    write_rows(out / "regressions.jsonl", answers)
    said = {(p.id, p.arm): (p.text, p.calls) for p in gathered.predictions}
    again = [p for p in gathered.timed if p.arm == TUNED]
    assert gathered.engine is not None, "something may ship, and the base is asked with it"
    return EvaluationManifest(
        engine=gathered.engine,
        sandbox=_sandbox(plan, config),
        adapter_sha256=hashes,
        rows=len(rows),
        look=look.number,
        looks=look.of,
        sealed_sha256=test_sha256,
        evidence=[recorded(inputs.folder, file) for file in (LOOKS, RESPONSES)],
        confidence=of_all,
        role_confidence=of_role,
        roles={role: results.summary(role, of_all if role == EVERY_ROLE else of_role) for role in _roles(rows, plan)},
        files=gathered.files,
        repeated=len(again),
        repeated_alike=sum(said[p.id, p.arm] == (p.text, p.calls) for p in again),
        regressions=regressions,
        judge=judge_agreement(scores, of_role),
        endpoints={name: f"{one.url} {one.model}" for name, one in config.endpoints.items()},
    )


def _judged(plan: PlanManifest, config: EvaluateConfig, folder: Path, scores: Sequence[Score]) -> dict[str, object]:
    """What makes an evaluation a new look at the held-out test set, besides the adapters."""
    return {
        "rules": plan.rules.model_dump(),
        "settings": config.model_dump(include=_WHAT_DECIDES - ({"server"} if config.server is None else set())),
        "own": {name: hash_of_file(folder / name) for name in own_files(_asked_checks(plan))},
        "verdicts": [(one.id, one.arm, one.outcome) for one in scores],
    }


def _roles(rows: Sequence[Example], plan: PlanManifest) -> list[str]:
    return [EVERY_ROLE, *sorted({row.role for row in rows} | set(plan.rules.checks))]


def _sandbox(plan: PlanManifest, config: EvaluateConfig) -> Sandbox | None:
    return sandbox_of(Limits(unsafe=config.unsafe_exec)) if _asked_checks(plan) & RUNS_CODE else None


def _asked_checks(plan: PlanManifest) -> set[str]:
    """Every check that some role's rule names."""
    return {name for rule in plan.rules.checks.values() for name in (*rule.checks, *rule.weights)}
