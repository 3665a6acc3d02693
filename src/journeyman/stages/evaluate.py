"""evaluate: the sealed rows through the engine and the very files that will serve, in several arms.

teacher: what the logs hold. base: the untuned model. few-shot: the base with training rows in its prompt. tuned.

Answers are kept one by one as they come (inference.answers), so an interrupted evaluation goes on where it stopped, and
another check does not ask again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.artifacts import read_rows, sha256_of, write_rows
from journeyman.config import EvaluateConfig
from journeyman.errors import EngineError, Interrupted
from journeyman.inference.answers import Answers
from journeyman.inference.arms import few_shot_turns, teacher_predictions, with_turns
from journeyman.inference.llama import EngineSettings, running_engine
from journeyman.manifests import CheckRule, EvaluationManifest, PlanManifest
from journeyman.ports import Generator, Reporter
from journeyman.records import Example, Message, Prediction, Verdict
from journeyman.rendering.renderer import Renderer
from journeyman.scoring.checks import Answer, Checks, judge
from journeyman.scoring.sandbox import Limits
from journeyman.scoring.summary import summarize

_DEFAULT_RULE = CheckRule(checks=["answered"])


def evaluate(
    sealed: Path,
    train_rows: Path,
    adapters: Mapping[str, Path],
    plan: PlanManifest,
    config: EvaluateConfig,
    renderer: Renderer,
    folder: Path,
    out: Path,
    reporter: Reporter,
) -> EvaluationManifest:
    """Asks, judges and sums up.

    Args:
        train_rows: where the few-shot arm's examples come from.
        adapters: 'all' or role → the adapter's file.
        folder: the run's, where answers are kept and checks of the person's own lie.

    Raises:
        Interrupted: asked to stop; the answers so far are kept.
        EngineError: the engine failed, or made other token ids of a prompt than training did.
    """
    rows = list(read_rows(sealed, Example))
    settings = EngineSettings(
        Path(plan.base_path), adapters, config.context, config.threads, config.max_new_tokens, config.temperature
    )
    reporter.begin("load the engine", 1, "model")
    with running_engine(settings) as engine:
        identical = _prove_prompts(rows, engine, renderer)
        shown = few_shot_turns(train_rows, rows, config, renderer) if config.few_shot else {}
        answers = Answers(folder, settings, plan.base_sha256)
        predictions = _ask(rows, shown, engine, answers, config, reporter)
        load_s, peak = engine.load_s, answers.peak_memory_bytes
    predictions = [*teacher_predictions(rows), *predictions]
    write_rows(out / "predictions.jsonl", predictions)
    verdicts = _judge(rows, predictions, plan, config, folder, reporter)
    write_rows(out / "verdicts.jsonl", verdicts)
    roles = {role: summarize(role, predictions, verdicts, _confidence(role, plan)) for role in _roles(rows, plan)}
    return EvaluationManifest(
        engine="llama.cpp (xllamacpp)",
        adapter_sha256={name: sha256_of(path) for name, path in adapters.items()},
        base_sha256=plan.base_sha256,
        rows=len(rows),
        roles=roles,
        load_s=load_s,
        peak_memory_gb=peak / 1e9 if peak else None,
        identical_prompts=identical,
    )


def _roles(rows: Sequence[Example], plan: PlanManifest) -> list[str]:
    return ["all", *sorted({row.role for row in rows} | set(plan.rules.checks))]


def _confidence(role: str, plan: PlanManifest) -> float:
    return plan.rules.confidence if role == "all" else plan.rules.role_confidence


def _prove_prompts(rows: Sequence[Example], engine: Generator, renderer: Renderer) -> int:
    """Every prompt must be the same token ids in the engine as in training."""
    for row in rows:
        trained, served = renderer.prompt_ids(row.messages, row.tools), engine.prompt_ids(row.messages, row.tools)
        if trained != served:
            place = next((i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b), -1)
            raise EngineError(
                f"row {row.id}: training and serving make different prompts, from token {place} on: "
                f"{renderer.decode(trained[place:][:8])!r} against {renderer.decode(served[place:][:8])!r}",
                "Report this base model: its template or tokenizer is not supported",
            )
    return len(rows)


def _ask(
    rows: Sequence[Example],
    shown: Mapping[str, Sequence[Message]],
    engine: Generator,
    answers: Answers,
    config: EvaluateConfig,
    reporter: Reporter,
) -> list[Prediction]:
    predictions = []
    todo = [
        (row, arm) for row in rows for arm in ("base", "few-shot", "tuned") if arm != "few-shot" or row.role in shown
    ]
    reporter.begin("evaluate", len(todo), "answers")
    for number, (row, arm) in enumerate(todo):
        if reporter.stop_requested:
            raise Interrupted(f"stopped after {number} of {len(todo)} answers", "Run it again to go on")

        def moved(tokens: int, number: int = number, row: Example = row, arm: str = arm) -> None:
            reporter.advance(number + min(1.0, tokens / config.max_new_tokens), f"{row.role}, {arm}")

        messages = with_turns(row.messages, shown[row.role]) if arm == "few-shot" else list(row.messages)
        key = answers.key(row, arm, messages)
        prediction = answers.find(key, row)
        if prediction is None:
            prediction = engine.generate(row.id, row.role, messages, arm, moved, row.tools)
            answers.add(key, prediction, engine.peak_memory_bytes())
        predictions.append(prediction)
    reporter.advance(len(todo))
    return predictions


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
        row = by_id[p.id]
        asked = "\n\n".join(turn.content for turn in row.messages if turn.role != "system")
        answer = Answer(p.text, p.finish_reason, row.check, limits, p.calls, row.answer, row.answer_calls, asked)
        check, finding = judge(answer, plan.rules.checks.get(p.role, _DEFAULT_RULE), checks)
        verdicts.append(
            Verdict(id=p.id, role=p.role, arm=p.arm, outcome=finding.outcome, check=check, detail=finding.detail)
        )
        reporter.advance(number)
    return verdicts
