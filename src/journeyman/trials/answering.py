"""Puts rows to the base and to trials' adapters, through the engine and the file that will serve, and scores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.errors import InputError
from journeyman.inference.arm_runner import RunningEngine
from journeyman.inference.arms import questions
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import evaluated_server, running_engine
from journeyman.inference.prompt_proof import prove_prompts
from journeyman.inference.response_cache import ResponseCache
from journeyman.manifests import PlanManifest
from journeyman.protocols import EngineSettings, Reporter, adapter_of
from journeyman.records import TUNED, Example, Message, Prediction, Score
from journeyman.runs import Run
from journeyman.scoring.judging import judge_rows


@dataclass(frozen=True)
class Arm:
    """Who answers which rows.

    Attributes:
        name: records.BASE, FEW_SHOT, or "tuned@" and the trial's name: see `tuned`.
        adapters: 'all' or role → file; none: the base.
        shown: role → turns before the question, for few-shot.
    """

    name: str
    rows: Sequence[Example]
    adapters: Mapping[str, Path] = field(default_factory=dict)
    shown: Mapping[str, list[Message]] = field(default_factory=dict)


def tuned(name: str) -> str:
    """The name of the arm of a trial's adapters."""
    return f"{TUNED}@{name}"


def answer_rows(
    run: Run, arms: Sequence[Arm], folder: Path, reporter: Reporter, running_engine: RunningEngine = running_engine
) -> dict[str, list[Prediction]]:
    """Arm → its answers. All arms are answered by one engine, which has the adapters of all of them.

    The rows' token ids are compared with those of training first, as in an evaluation.

    Args:
        folder: with the response cache: an answer that is there is not asked for again.

    Raises:
        Interrupted: asked to stop; the answers so far are kept.
        EngineError: the engine failed, or reads a prompt differently from training.
        InputError: no file of the base may ship, so no engine can be started here.
    """
    if not run.served:
        raise InputError(
            "no GGUF file of the base may ship, and trials are scored with the engine that serves one",
            "Set evaluate.quantizations, such as ['Q8_0']",
        )
    config, template = run.config.evaluate, run.renderer.served_template
    files = {f"{arm.name}/{name}": file for arm in arms for name, file in arm.adapters.items()}
    settings = EngineSettings(
        run.served[0], files, config.context, config.threads, config.temperature, config.parallel,
        None if template.own else template.source, template.variables, evaluated_server(config, run.root),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    answers = ResponseCache(folder)
    progress = DispatchProgress(reporter, sum(len(arm.rows) for arm in arms))
    found: dict[str, list[Prediction]] = {}
    reporter.begin(f"load {run.served[0].name}", 1, "model")
    with running_engine(settings) as engine:
        distinct = {row.id: row for arm in arms for row in arm.rows}
        prove_prompts(list(distinct.values()), run.renderer, engine, reporter)
        reporter.begin("answer", progress.total, "answers")
        for arm in arms:

            def adapter(role: str, arm: Arm = arm) -> str | None:
                name = adapter_of(role, arm.adapters)
                return None if name is None else f"{arm.name}/{name}"

            asked = questions(arm.name, arm.rows, adapter, config, arm.shown)
            found[arm.name] = dispatch(asked, engine, answers, config.parallel, progress).predictions
    return found


def score_rows(
    run: Run, arms: Sequence[Arm], folder: Path, reporter: Reporter, running_engine: RunningEngine = running_engine
) -> dict[str, list[Score]]:
    """Arm → a score for each of its answers, by the checks of the run's plan; arguments and errors: see answer_rows."""
    answers = answer_rows(run, arms, folder, reporter, running_engine)
    rules = run.result("plan", PlanManifest).rules.checks
    return {
        arm.name: judge_rows(arm.rows, answers[arm.name], rules, run.config.evaluate, run.root, reporter)
        for arm in arms
    }
