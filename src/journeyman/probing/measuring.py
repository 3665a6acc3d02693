"""The probe itself: asks the arms, tunes on parts of the rows and writes what was found to the run's folder probe/.

Everything is kept as it is made: answers in a response cache, adapters with their checkpoints, the choice of parts. So
an interrupted probe resumes, and one whose inputs are unchanged asks and trains nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from journeyman.artifacts import hash_of, read_model, write_atomic, write_model
from journeyman.config import EvaluateConfig, TrainConfig
from journeyman.errors import InputError, Interrupted
from journeyman.inference.arm_runner import RunningEngine
from journeyman.inference.arms import few_shot_turns, teacher_predictions, timed_rows
from journeyman.inference.engines import running_engine
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.probing.copying import copied_answers, nearest
from journeyman.probing.costs import SHARES, PartCost, affordable, train_seconds
from journeyman.probing.page import page_of
from journeyman.probing.record import Chosen, Part, ProbeRecord
from journeyman.probing.summarizing import rows_by_role, summarized
from journeyman.protocols import Reporter, adapter_of
from journeyman.reasons.probing import PARTS
from journeyman.records import BASE, FEW_SHOT, Prediction
from journeyman.runs import Run
from journeyman.scoring.judging import judge_rows
from journeyman.training.row_rules import trained_rows
from journeyman.trials.answering import Arm, answer_rows, tuned
from journeyman.trials.inputs import inputs_of_trials, key_of_training
from journeyman.trials.rows import TrialRows, rows_of
from journeyman.trials.training import train_trial

FOLDER, RECORD, PAGE = "probe", "probe.json", "probe.md"
"""The folder is not the plan's: that is made anew with every new plan, and its files are those of its manifest."""
_CHOSEN = "parts.json"
_VERSION = 2
_MOST_ROWS = 300
"""Validation rows of a role that are asked: with 300, an interval is at most 11 points wide."""


def inputs_of_probe(run: Run, budget_s: float) -> dict[str, str]:
    """Everything that the probe depends on; the run has to be planned."""
    return {**inputs_of_trials(run), "probe version": repr(_VERSION), "budget": repr(float(budget_s))}


def recorded(root: Path) -> ProbeRecord | None:
    """The record of the last probe in a run's folder, fresh or not; None if there is none."""
    path = root / FOLDER / RECORD
    return read_model(path, ProbeRecord) if path.is_file() else None


def is_fresh(record: ProbeRecord, run: Run) -> bool:
    """Whether nothing that the probe depends on has changed."""
    return record.inputs == inputs_of_probe(run, record.budget_s)


def probe(run: Run, budget_s: float, reporter: Reporter, running_engine: RunningEngine = running_engine) -> ProbeRecord:
    """Probes a planned run, or returns the record of the last probe if nothing has changed.

    The caller holds the run's lock.

    Args:
        budget_s: for tuning on parts of the rows and answering with them.

    Raises:
        InputError: there are no validation or training rows, or no file of the base may ship.
        Interrupted: asked to stop; the same call resumes.
        EngineError, NoGo, TrainingDiverged, DiskError: as trials do.
    """
    start, folder = time.monotonic(), run.root / FOLDER
    inputs = inputs_of_probe(run, budget_s)
    before = recorded(run.root)
    if before is not None and before.inputs == inputs:
        return before
    run.load_checks()
    every = rows_of(run)
    rows = replace(every, train=trained_rows(every.train, run.config.train.rows))
    for name, of in (("validation", rows.val), ("training", rows.train)):
        if not of:
            raise InputError(
                f"there are no {name} rows, so nothing can be probed", "Log more rows, or set curate.val_share"
            )
    asked, config = timed_rows(rows.val, _MOST_ROWS), run.config.evaluate
    shown = few_shot_turns(run.file("curate", "train.jsonl"), asked, _with_examples(config), run.renderer)
    arms = [Arm(BASE, asked), *([Arm(FEW_SHOT, asked, shown=shown)] if shown else [])]
    plan = run.result("plan", PlanManifest)
    parts = {name: rows.part(share, run.config.train.seed) for name, share in SHARES.items()}
    train_s = {name: train_seconds(plan, _tokens(one) / max(1, plan.tokens_per_epoch)) for name, one in parts.items()}
    _announce(len(asked), len(arms), config.max_new_tokens, train_s, budget_s, reporter)
    answers = answer_rows(run, arms, folder, reporter, running_engine)
    answer_s = _answer_s(answers[BASE], config)
    costs = [PartCost(name, len(one.train), train_s[name], answer_s) for name, one in parts.items()]
    chosen = _chosen(folder, costs, hash_of(inputs), budget_s, reporter)
    made = {name: _trained(run, name, parts[name], reporter) for name in chosen.kept}
    if made:
        tuned_arms = [
            Arm(tuned(name), [row for row in asked if adapter_of(row.role, files) is not None], files)
            for name, (_, files) in made.items()
        ]
        answers |= answer_rows(run, tuned_arms, folder, reporter, running_engine)
    found = nearest(every.train, asked)
    predictions = [
        *teacher_predictions(asked), *copied_answers(asked, found), *(one for of in answers.values() for one in of)
    ]  # fmt: skip
    scores = judge_rows(asked, predictions, plan.rules.checks, config, run.root, reporter)
    tried = [_part(name, parts[name], trained) for name, (trained, _) in made.items()]
    similarity = {row: one.similarity for row, one in found.items()}
    record = ProbeRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=inputs,
        threshold=plan.rules.min_success,
        budget_s=budget_s,
        shown={role: len(turns) // 2 for role, turns in shown.items()},
        parts=tried,
        left_out=chosen.left_out,
        rows=len(asked),
        of_rows=len(rows.val),
        seconds=time.monotonic() - start,
        roles=summarized(asked, rows.train, scores, tried, plan.rules, similarity),
    )
    write_model(folder / RECORD, record)
    write_atomic(folder / PAGE, page_of(record).encode())
    return record


def _with_examples(config: EvaluateConfig) -> EvaluateConfig:
    """The settings with the default number of examples if evaluate.few_shot leaves them out of evaluations."""
    default = EvaluateConfig.model_fields["few_shot"].default
    return config.model_copy(update={"few_shot": config.few_shot or default})


def _answer_s(answers: Sequence[Prediction], config: EvaluateConfig) -> float:
    """The seconds that answering all rows once took the base, several at a time."""
    return sum(one.latency_s or 0.0 for one in answers) / max(1, config.parallel)


def _announce(
    rows: int, arms: int, tokens: int, train_s: Mapping[str, float], budget_s: float, reporter: Reporter
) -> None:
    """Says what the probe will cost, before anything is asked."""
    training = ", ".join(f"{PARTS[name]} about {seconds:,.0f} s" for name, seconds in train_s.items())
    reporter.say(f"probe: {rows} validation rows; the held-out test rows stay closed")
    reporter.say(
        f"probe: the base answers up to {arms} times {rows} rows of at most {tokens} tokens; how long that takes is "
        "known once it has"
    )
    reporter.say(f"probe: tuning on parts of the rows: {training}; at most {budget_s:,.0f} s with their answers")


def _chosen(folder: Path, costs: Sequence[PartCost], inputs: str, budget_s: float, reporter: Reporter) -> Chosen:
    """The parts to tune on, as an interrupted probe with the same inputs has chosen them, or chosen now."""
    path = folder / _CHOSEN
    if path.is_file() and (before := read_model(path, Chosen)).inputs == inputs:
        return before
    kept, left_out = affordable(costs, budget_s)
    reporter.say(f"probe: the answers of each tuned model: about {costs[0].answer_s:,.0f} s, as the base took")
    for missing in left_out:
        reporter.say(f"probe: {missing.sentence()}")
    chosen = Chosen(inputs=inputs, kept=kept, left_out=[one.record() for one in left_out])
    write_model(path, chosen)
    return chosen


def _recipe(config: TrainConfig, name: str) -> TrainConfig:
    """The run's recipe for a part: the same epochs, and so fewer steps; the warm-up stays the same share of them."""
    return config.model_copy(update={"warmup_steps": round(config.warmup_steps * SHARES[name])})


def _trained(run: Run, name: str, rows: TrialRows, reporter: Reporter) -> tuple[AdapterManifest, dict[str, Path]]:
    """Each recipe on each dataset has its own folder: a change costs no adapter that was trained before."""
    if reporter.stop_requested:
        raise Interrupted("stopped between two parts", "The same command resumes")
    reporter.say(f"probe: tuning on {PARTS[name]} of the rows ({len(rows.train):,})")
    config = _recipe(run.config.train, name)
    return train_trial(run, config, rows, run.root / FOLDER / f"{name}-{key_of_training(run, config, rows)}", reporter)


def _tokens(rows: TrialRows) -> int:
    return sum(row.prompt_tokens + row.answer_tokens for row in rows.train)


def _part(name: str, rows: TrialRows, made: AdapterManifest) -> Part:
    return Part(
        name=name,
        arm=tuned(name),
        rows=rows_by_role(rows.train),
        losses={of: one.best_loss for of, one in made.adapters.items() if one.best_loss is not None},
        steps=sum(one.steps for one in made.adapters.values()),
        train_s=made.train_s,
    )
