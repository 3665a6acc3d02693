"""plan: what training will cost, warnings, and the rules of the decision, fixed before any result is seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.config import Config, RoleConfig
from journeyman.manifests import CheckRule, DatasetManifest, PlanManifest, PlannedFile, Rules, merged_name
from journeyman.models.families import is_stacked
from journeyman.models.geometry import Geometry
from journeyman.models.sizes import Sizes
from journeyman.protocols import Reporter
from journeyman.reasons import Reason, ReasonRecord, planning
from journeyman.sizing.memory import serving_bytes
from journeyman.sizing.notes import notes_of
from journeyman.sizing.parameters import lora_parameters
from journeyman.stages.plan_page import plan_text
from journeyman.stats.rates import power, rows_needed, wilson
from journeyman.training.batches import steps_per_epoch
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
) -> PlanManifest:
    """Measures the machine for half a second and writes plan.md next to the manifest.

    Args:
        base: the file or folder that is trained on.
        served: what may ship: the base itself if it is a file, then others.
        stored_bytes: see placement.Workload.

    Raises:
        InputError: the config asks for a device or a precision that is not there.
        NoGo: training does not fit in memory.
    """
    reporter.begin("plan", 1, "measurement")
    train = config.train
    use_threads(train.threads)
    rows = sum(split.train for split in dataset.splits.values())
    trainable = lora_parameters(sizes, train.lora.rank, train.lora.targets)
    of_runs = [rows] if train.adapters == "shared" else [split.train for split in dataset.splits.values()]
    per_epoch = sum(steps_per_epoch(count, train.rows_per_step) for count in of_runs)
    tokens = dataset.train_tokens * train.epochs
    step_tokens = tokens // max(1, per_epoch * train.epochs)
    prompt_tokens = dataset.lengths.mean_prompt if dataset.lengths is not None else 0.0
    work = Workload(sizes, trainable, dataset.longest_row_tokens, step_tokens, prompt_tokens, stored_bytes)
    placed = place(work, train)
    chosen = placed.memory
    serving = [
        serving_bytes(round(one.size_gb * 1e9), sizes, trainable, config.evaluate.context * config.evaluate.parallel)
        for one in served
    ]
    rules = _rules(dataset, config, served)
    power_rate = (1 + rules.min_success) / 2
    made = PlanManifest(
        base_path=str(base),
        base_sha256=base_sha256,
        base_parameters=sizes.parameters,
        trainable_parameters=trainable,
        steps_per_epoch=per_epoch,
        total_steps=per_epoch * train.epochs,
        tokens_per_epoch=dataset.train_tokens,
        total_tokens=tokens,
        device=CUDA if placed.gpus else None,
        device_name="; ".join(one.line() for one in placed.gpus) or None,
        sharded=placed.sharded,
        precision="fp8" if train.precision == "fp8" else str(placed.dtype).removeprefix("torch."),
        matrix_gflops=placed.gflops,
        memory=chosen.way,
        pack_tokens=chosen.pack_tokens,
        group_tokens=chosen.group_tokens,
        estimated_train_s=placed.seconds(work, train, tokens, per_epoch * train.epochs),
        estimated_train_memory_gb=chosen.bytes / 1e9,
        estimated_serve_memory_gb=max(serving) / 1e9 if serving else None,
        served=list(served),
        rules=rules,
        power={
            role: power(round(split.effective_test), power_rate, rules.min_success, rules.role_confidence)
            for role, split in dataset.splits.items()
        },
        power_rate=power_rate,
        warnings=[
            *(one.record() for one in placed.notes),
            *_warnings(dataset, config, per_epoch * train.epochs, sizes, rules.role_confidence),
        ],
    )
    write_atomic(out / "plan.md", plan_text(made, config).encode())
    reporter.advance(1)
    return made


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


def _warnings(
    dataset: DatasetManifest, config: Config, steps: int, sizes: Sizes, confidence: float
) -> list[ReasonRecord]:
    warnings: list[Reason] = notes_of(sizes, config.train.lora.targets)
    train, decide = config.train, config.decide
    if train.warmup_steps >= steps:
        warnings.append(planning.WarmupNeverEnds(train.warmup_steps, steps, train.learning_rate))
    unknown = sorted(set(config.roles) - set(dataset.splits))
    if unknown:
        known = ", ".join(sorted(dataset.splits))
        warnings.append(planning.RoleWithoutRows(unknown[0], known))
    if dataset.longest_row_tokens > sizes.context:
        warnings.append(planning.OverContext(dataset.longest_row_tokens, sizes.context))
    if isinstance(sizes, Geometry):
        warnings += _of_base(sizes, train.lora.targets, config.evaluate.context, dataset.longest_row_tokens)
    for role, split in dataset.splits.items():
        rows = split.effective_test
        if not rows or wilson(rows, rows, confidence)[0] < decide.min_success:
            needed = rows_needed(1.0, decide.min_success, confidence)
            warnings.append(planning.TooFewTestRows(role, split.test, rows, decide.min_success, needed))
    return [*dataset.notes, *(warning.record() for warning in warnings)]


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
