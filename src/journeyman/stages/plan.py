"""plan: what training will cost, warnings, and the rules of the decision, fixed before any result is seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.config import Config, RoleConfig
from journeyman.deciding.power import power_rate, rule_powers
from journeyman.lints.facts import Disk, Facts
from journeyman.lints.table import findings
from journeyman.manifests import (
    CheckRule,
    DatasetManifest,
    FittedSetting,
    PlanManifest,
    PlannedFile,
    Rules,
    merged_name,
)
from journeyman.models.families import is_stacked
from journeyman.models.geometry import Geometry
from journeyman.models.license import license_of
from journeyman.models.sizes import Sizes
from journeyman.protocols import Reporter
from journeyman.reasons import Reason, ReasonRecord, planning
from journeyman.retention import NO_LOAD, GeneralLoad
from journeyman.sizing.memory import serving_bytes
from journeyman.sizing.notes import notes_of
from journeyman.sizing.parameters import lora_parameters
from journeyman.stages import plan_facts as facts_of_run
from journeyman.stages import plan_fitting
from journeyman.stages.plan_at_once import at_once_notes
from journeyman.stages.plan_evaluation import answer_times, bisect_time, export_time
from journeyman.stages.plan_page import plan_text, planned_recipe
from journeyman.stages.plan_time import Formula, TrialInputs, estimate_time
from journeyman.stats.power import power
from journeyman.training.devices import CUDA
from journeyman.training.hardware import use_threads
from journeyman.training.placement import Workload, place


def plan(
    dataset: DatasetManifest,
    config: Config,
    base: Path,
    served: Sequence[PlannedFile],
    base_sha256: str,
    sizes: Sizes,
    out: Path,
    reporter: Reporter,
    stored_bytes: int = 0,
    *,
    rows: Path,
    general: GeneralLoad = NO_LOAD,
    trial: TrialInputs | None = None,
    fitted: Sequence[FittedSetting] = (),
) -> PlanManifest:
    """Measures the machine, tries some steps of training, and writes plan.md next to the manifest.

    Args:
        base: the file or folder that is trained on.
        served: what may ship: the base itself if it is a file, then others.
        stored_bytes: see placement.Workload.
        rows: the training rows.
        general: the rows that are trained beside them.
        trial: what steps are tried with; None: the time is estimated from the rate of matrix products.
        fitted: what --fit changed in the config.

    Raises:
        InputError: the config asks for a device or a precision that is not there.
    """
    reporter.begin("plan", 1, "measurement")
    train = config.train
    dataset = facts_of_run.trained_part(dataset, rows, train.rows)
    use_threads(train.threads)
    trainable = lora_parameters(sizes, train.lora.rank, train.lora.targets)
    runs = facts_of_run.runs_of(dataset, train, general)
    per_epoch = sum(run.steps_per_epoch for run in runs.values())
    beside = sum(run.general_rows for run in runs.values())
    epoch_tokens = dataset.train_tokens + round(beside * general.mean_tokens)
    tokens = epoch_tokens * train.epochs
    step_tokens = tokens // max(1, per_epoch * train.epochs)
    prompt_tokens = dataset.lengths.mean_prompt if dataset.lengths is not None else 0.0
    longest_row = max(dataset.longest_row_tokens, general.longest_tokens)
    work = Workload(sizes, trainable, longest_row, step_tokens, prompt_tokens, stored_bytes)
    placed = place(work, train)
    chosen = placed.memory
    formula = Formula(
        seconds=placed.seconds(work, train, tokens, per_epoch * train.epochs),
        tokens=tokens,
        rows=sum(run.rows for run in runs.values()) + beside,
        validation_tokens=facts_of_run.validation_tokens(dataset),
        steps_per_epoch=[run.steps_per_epoch for run in runs.values()],
    )
    with tempfile.TemporaryDirectory(prefix="journeyman-plan-") as scratch:
        tried = estimate_time(
            trial if placed.misfit is None else None, rows, work, placed, config, formula, reporter, Path(scratch)
        )
        renderer = None if trial is None else trial.renderer
        answering = answer_times(
            dataset, rows, config, renderer, served, sizes, general, Path(scratch), out.parent, reporter
        )  # fmt: skip
    evaluation = answering.evaluation
    served_least = plan_fitting.serving_of(work, config, base, served, dataset.longest_row_tokens)
    nearest = [
        *plan_fitting.nearest_trainings(work, config, placed, rows, per_epoch * train.epochs, tried),
        *plan_fitting.nearest_of_serving(served_least, config),
    ]
    serving = [
        serving_bytes(round(one.size_gb * 1e9), sizes, trainable, config.evaluate.context * config.evaluate.parallel)
        for one in served
    ]
    rules, suite = _rules(dataset, config, served), facts_of_run.suite_of(config, renderer)
    precision = str(placed.dtype).removeprefix("torch.")
    made = PlanManifest(
        base_path=str(base),
        base_sha256=base_sha256,
        base_parameters=sizes.parameters,
        trainable_parameters=trainable,
        steps_per_epoch=per_epoch,
        total_steps=per_epoch * train.epochs,
        tokens_per_epoch=epoch_tokens,
        total_tokens=tokens,
        general_rows=beside,
        general_prompts=general.prompts,
        device=CUDA if placed.gpus else None,
        device_name="; ".join(one.line() for one in placed.gpus) or None,
        sharded=placed.sharded,
        precision=precision,
        matrix_gflops=placed.gflops,
        memory=chosen.way,
        pack_tokens=chosen.pack_tokens,
        group_tokens=chosen.group_tokens,
        estimated_train_s=tried.time.seconds,
        train_time=tried.time,
        general_time=answering.general,
        evaluate_time=evaluation,
        bisect_time=bisect_time(evaluation, tried.time, tokens, tokens / max(1, train.epochs * formula.rows), sizes),
        export_time=export_time(served, out),
        estimated_train_memory_gb=plan_fitting.peak_gb(work, train, placed, tried),
        train_memory_parts=plan_fitting.parts_gb(work, train, placed, tried),
        memory_free=plan_fitting.memory_free(placed, train),
        measured_train_memory_gb=None if tried.measured_peak_bytes is None else tried.measured_peak_bytes / 1e9,
        estimated_serve_memory_gb=max(serving) / 1e9 if serving else None,
        served=list(served),
        rules=rules,
        power={
            role: power(round(split.effective_test), power_rate(rules), rules.min_success, rules.role_confidence)
            for role, split in dataset.splits.items()
        },
        power_rate=power_rate(rules),
        warnings=[],
        rule_power=rule_powers(rules, dataset.splits, suite),
        disk=facts_of_run.disk_of(dataset, config, sizes, trainable, base, served, suite, out),
        teachers={name: one.rows for name, one in dataset.teachers.items()},
        rows=dataset.splits,
        license=license_of(base),
        serving=facts_of_run.serving_of(config),
        looked_at=facts_of_run.looked_at(config),
        nearest=nearest,
        fitted=list(fitted),
        recipe=planned_recipe(train),
    )
    longest_run = max((run.steps_per_epoch for run in runs.values()), default=0)
    lengths = facts_of_run.lengths_by_role(rows, config.evaluate.max_new_tokens)
    facts = Facts(
        recipe=facts_of_run.recipe_of(train, precision, longest_run),
        runs=runs,
        roles=facts_of_run.roles_of(dataset, lengths),
        base=facts_of_run.base_of(config, base, sizes),
        judging=facts_of_run.judging_of(rules),
        limits=facts_of_run.limits_of(dataset, config),
        machine=facts_of_run.machine_of(placed, config, tried.time),
        disk=_disk(made, out),
        memory=plan_fitting.memory_facts(placed, served_least, config, nearest, tried, made.estimated_train_memory_gb),
        other_roles=list(config.roles),
        models=facts_of_run.models_of(dataset, config),
        served=facts_of_run.served_of(served, sizes),
        train_s=made.estimated_train_s,
        expected=config.plan.expect.stated(),
        figures=facts_of_run.figures_of(_figures(made, placed.dtype.itemsize)),
    )
    found = findings(facts, config.plan.allow)
    warnings = [
        *(one.record() for one in placed.notes),
        *(one.record() for one in at_once_notes(work, config, placed, [one.steps_per_epoch for one in runs.values()])),
        *dataset.notes,
        *(one.record() for one in _notes(sizes, config, dataset.longest_row_tokens)),
        *(one.reason.record() for one in found if not one.is_error),
    ]
    made = made.model_copy(
        update={"warnings": _each_once(warnings), "errors": [one.reason.record() for one in found if one.is_error]}
    )
    write_atomic(out / "plan.md", plan_text(made, config).encode())
    reporter.advance(1)
    return made


def _each_once(records: Sequence[ReasonRecord]) -> list[ReasonRecord]:
    """Without repetitions: curate has noted some of them already."""
    found: dict[object, ReasonRecord] = {}
    for one in records:
        found.setdefault((one.code, tuple(sorted(one.details.items()))), one)
    return list(found.values())


def _disk(made: PlanManifest, out: Path) -> Disk | None:
    return None if made.disk is None else Disk(str(out.resolve().parent), made.disk.needs, made.disk.free)


def _figures(made: PlanManifest, compute_bytes: int) -> dict[str, float | None]:
    """What plan.expect is compared with, under its keys."""
    return {
        "steps": made.total_steps,
        "steps_per_epoch": made.steps_per_epoch,
        "trainable_parameters": made.trainable_parameters,
        "base_parameters": made.base_parameters,
        "base_gb": made.base_parameters * compute_bytes / 1e9,
        "train_memory_gb": made.estimated_train_memory_gb,
        "serve_memory_gb": made.estimated_serve_memory_gb,
        "train_hours": made.estimated_train_s / 3600,
        "train_rows": sum(one.train for one in made.rows.values()),
        "test_rows": sum(one.test for one in made.rows.values()),
        "disk_gb": None if made.disk is None else sum(made.disk.needs.values()) / 1e9,
    }


def _rules(dataset: DatasetManifest, config: Config, served: Sequence[PlannedFile]) -> Rules:
    decide, server = config.decide, config.evaluate.server
    ships = [Path(one.path).name for one in served]
    ships += [merged_name(kind) for kind in config.evaluate.merged]
    ships += [f"server {server.url}"] if server is not None else []
    return Rules(
        max_mean_latency_s=decide.max_mean_latency_s,
        min_success=decide.min_success,
        max_memory_gb=decide.max_memory_gb,
        stretch_mean_latency_s=decide.stretch_mean_latency_s,
        stretch_success=decide.stretch_success,
        confidence=decide.confidence,
        role_confidence=role_confidence(dataset, decide.confidence, len(ships)),
        margin=decide.margin,
        regression_margin=decide.regression_margin,
        files=ships,
        checks={role: _check_rule(config.role(role)) for role in dataset.splits},
    )


def role_confidence(dataset: DatasetManifest, confidence: float, files: int) -> float:
    """Bonferroni correction: the chance that any interval, of any role on any file, misses the true value stays below
    1 - confidence."""
    judged = sum(split.test > 0 for split in dataset.splits.values())
    return 1 - (1 - confidence) / (max(1, judged) * files)


def _check_rule(role: RoleConfig) -> CheckRule:
    return CheckRule(checks=role.checks, weights=role.weights, pass_at=role.pass_at)


def _notes(sizes: Sizes, config: Config, longest: int) -> list[Reason]:
    """What the plan says of the base."""
    found: list[Reason] = notes_of(sizes, config.train.lora.targets)
    if isinstance(sizes, Geometry):
        found += _of_base(sizes, config.train.lora.targets, config.evaluate.context, longest)
    return found


def _of_base(geometry: Geometry, targets: Sequence[str], context: int, longest: int) -> list[Reason]:
    """What of the base differs from what one may expect. `longest`: tokens of the longest row."""
    found: list[Reason] = []
    also = geometry.also_changed(targets)
    if also and geometry.experts is None:  # those of experts: see ExpertsAdapted
        adapted = geometry.adapted_modules(targets)
        found.append(planning.FusedTargets(", ".join(targets), ", ".join(adapted), ", ".join(also)))
    found += of_experts(geometry, targets)
    if geometry.factors(context) == "long":
        assert geometry.rotary.long_above is not None
        found.append(planning.LongFactors(context, geometry.rotary.long_above))
    if geometry.unserved_window is not None and longest > geometry.unserved_window:
        found.append(planning.WindowNotServed(geometry.unserved_window, longest))
    return found


def of_experts(geometry: Geometry, targets: Sequence[str]) -> list[Reason]:
    """A warning if an adapter for these targets changes experts."""
    modules = geometry.adapted_modules(targets)
    parts = {one: geometry.copies(one) * sum(geometry.module_shape(one)) for one in modules}
    stacked = sum(count for one, count in parts.items() if is_stacked(one))
    if geometry.experts is None or not stacked:
        return []
    return [planning.ExpertsAdapted(geometry.experts.count, stacked / sum(parts.values()))]
