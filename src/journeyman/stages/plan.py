"""plan: what training will cost, warnings, and the rules of the decision, fixed before any result is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from journeyman.artifacts import write_atomic
from journeyman.config import Config, RoleConfig, TrainConfig
from journeyman.errors import InputError, NoGo
from journeyman.foreign import markdown, named
from journeyman.manifests import CheckRule, DatasetManifest, PlanManifest, PlannedFile, Rules
from journeyman.models.families import is_stacked
from journeyman.models.geometry import Geometry
from journeyman.models.sizes import Sizes
from journeyman.protocols import Reporter
from journeyman.reasons import Reason, ReasonRecord, planning
from journeyman.sizing.duration import training_seconds
from journeyman.sizing.memory import MemoryWay, TrainingSize, serving_bytes, training_bytes, ways_of
from journeyman.sizing.notes import notes_of
from journeyman.sizing.parameters import lora_parameters
from journeyman.stats.rates import power, rows_needed, wilson
from journeyman.training.batches import PACK_TOKENS, steps_per_epoch
from journeyman.training.hardware import compute_dtype, free_memory_bytes, matrix_gflops, use_threads

_FREE_SHARE = 0.9
_MOST_GROUP = 8192
_LONG_PROMPT = 512
_WAYS = {
    "keep": "weights and activations of all layers stay in memory",
    "recompute": "activations are recomputed in the backward pass, which takes 1.5 times the work",
    "stream": "like recompute, and only two layers' weights are in memory; the others stay quantized in the file",
}


def plan(
    dataset: DatasetManifest,
    config: Config,
    base: Path,
    served: Sequence[PlannedFile],
    base_sha256: str,
    sizes: Sizes,
    out: Path,
    reporter: Reporter,
) -> PlanManifest:
    """Measures the machine for half a second and writes plan.md next to the manifest.

    Args:
        base: the file or folder that is trained on.
        served: what may ship: the base itself if it is a file, then others.

    Raises:
        NoGo: training does not fit in memory.
    """
    reporter.begin("plan", 1, "measurement")
    train = config.train
    use_threads(train.threads)
    dtype = compute_dtype(train.precision)
    rows = sum(split.train for split in dataset.splits.values())
    trainable = lora_parameters(sizes, train.lora.rank, train.lora.targets)
    of_runs = [rows] if train.adapters == "shared" else [split.train for split in dataset.splits.values()]
    per_epoch = sum(steps_per_epoch(count, train.rows_per_step) for count in of_runs)
    tokens = dataset.train_tokens * train.epochs
    gflops = matrix_gflops(dtype)
    size = TrainingSize(sizes, trainable, dtype.itemsize, dataset.longest_row_tokens)
    prompt_tokens = dataset.lengths.mean_prompt if dataset.lengths is not None else 0.0
    step_tokens = tokens // max(1, per_epoch * train.epochs)
    chosen = choose_memory(size, train, step_tokens, prompt_tokens)
    seconds = training_seconds(
        sizes.linear_parameters, sizes.hidden, tokens, step_tokens, gflops, recompute=chosen.way != "keep"
    )
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
        precision=str(dtype).removeprefix("torch."),
        matrix_gflops=gflops,
        memory=chosen.way,
        pack_tokens=chosen.pack_tokens,
        group_tokens=chosen.group_tokens,
        estimated_train_s=seconds,
        estimated_train_memory_gb=chosen.bytes / 1e9,
        estimated_serve_memory_gb=max(serving) / 1e9 if serving else None,
        served=list(served),
        rules=rules,
        power={
            role: power(round(split.effective_test), power_rate, rules.min_success, rules.role_confidence)
            for role, split in dataset.splits.items()
        },
        power_rate=power_rate,
        warnings=_warnings(dataset, config, per_epoch * train.epochs, sizes, rules.role_confidence),
    )
    write_atomic(out / "plan.md", plan_text(made, config).encode())
    reporter.advance(1)
    return made


@dataclass(frozen=True)
class MemoryChoice:
    """The memory mode of training, and the estimated peak."""

    way: MemoryWay
    pack_tokens: int
    group_tokens: int
    bytes: int


def choose_memory(size: TrainingSize, train: TrainConfig, step_tokens: int, prompt_tokens: float) -> MemoryChoice:
    """The first memory mode whose estimate fits.

    Args:
        step_tokens: tokens of an optimizer step; never more are computed at once.
        prompt_tokens: mean length of a prompt. Long prompts usually have a common part, which a larger pack computes
            once for more rows.

    Raises:
        InputError: the base cannot be trained in the mode of `train.memory`.
        NoGo: none fits; training would run out of memory.
    """
    limit = int(train.max_memory_gb * 1e9) if train.max_memory_gb else int(_FREE_SHARE * free_memory_bytes())
    ways: Sequence[MemoryWay] = ways_of(size.sizes) if train.memory == "auto" else (train.memory,)
    if train.memory != "auto" and train.memory not in ways_of(size.sizes):
        raise InputError(
            f"train.memory = {train.memory!r} is not available for this base: transformers, which trains it, needs all "
            "weights in memory",
            "Set train.memory = 'auto'",
        )
    packs = [PACK_TOKENS] if train.pack_tokens is None else [train.pack_tokens]
    if train.pack_tokens is None and prompt_tokens >= _LONG_PROMPT:
        packs = [PACK_TOKENS * times for times in (4, 2, 1) if PACK_TOKENS * times <= max(PACK_TOKENS, step_tokens)]
    needed: dict[MemoryWay, int] = {}
    for way in ways:
        for pack in (max(tokens, size.longest_row) for tokens in packs):
            group = pack
            needed[way] = training_bytes(size, way, pack, group)
            if needed[way] > limit:
                continue
            # With a larger group, weights are streamed less often, but a kill loses more work.
            while way == "stream" and group < min(step_tokens, _MOST_GROUP):
                if training_bytes(size, way, pack, group + pack) > limit:
                    break
                group += pack
            return MemoryChoice(way, pack, group, training_bytes(size, way, pack, group))
    tried = {f"{way}_gb": needed[way] / 1e9 if way in needed else None for way in get_args(MemoryWay)}
    raise NoGo(
        planning.TrainingDoesNotFit(limit / 1e9, **tried),
        "Lower train.pack_tokens or curate.max_length, use a smaller base, or raise train.max_memory_gb",
    )


def _rules(dataset: DatasetManifest, config: Config, served: Sequence[PlannedFile]) -> Rules:
    decide, server = config.decide, config.evaluate.server
    ships = [Path(one.path).name for one in served]
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


def _rule_text(rule: CheckRule) -> str:
    if not rule.weights:
        return ", ".join(rule.checks)
    return (
        " + ".join(f"{weight:g} × {name}" for name, weight in rule.weights.items()) + f", at least {rule.pass_at:.0%}"
    )


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


def _serving_text(plan: PlanManifest) -> str:
    return "not known" if plan.estimated_serve_memory_gb is None else f"{plan.estimated_serve_memory_gb:.2f} GB"


def _served_text(one: PlannedFile) -> str:
    made = f", made of the base by {one.made_by}" if one.made_by else ""
    return f"{markdown(one.path)} ({one.size_gb:.2f} GB{made}), SHA-256 {one.sha256}"


def plan_text(plan: PlanManifest, config: Config) -> str:
    """The plan as a page of Markdown."""
    rules = plan.rules
    lines = [
        "# Plan",
        "",
        f"- base: {markdown(plan.base_path)} ({plan.base_parameters:,} parameters), SHA-256 {plan.base_sha256}",
        *(f"- serves: {_served_text(one)}" for one in plan.served if one.path != plan.base_path),
        f"- trainable: {plan.trainable_parameters:,} parameters (rank {config.train.lora.rank})",
        f"- steps: {plan.total_steps} ({plan.steps_per_epoch} per epoch), {plan.total_tokens:,} tokens",
        f"- precision: {plan.precision}; measured rate of matrix products: {plan.matrix_gflops:.0f} GFLOP/s",
        f"- estimated time: {plan.estimated_train_s:.0f} s",
        f"- memory mode: {plan.memory} ({_WAYS[plan.memory]})",
        f"- estimated memory: {plan.estimated_train_memory_gb:.1f} GB to train, {_serving_text(plan)} to serve",
        "",
        "## Decision rules, fixed now",
        "",
        f"- deploy: success at least {rules.min_success:.1%}, mean latency below {rules.max_mean_latency_s:g} s, "
        f"memory at most {rules.max_memory_gb:g} GB",
        f"- stretch: success at least {rules.stretch_success:.1%}, mean latency below "
        f"{rules.stretch_mean_latency_s:g} s",
        f"- intervals at {rules.confidence:.0%} confidence over all roles, {rules.role_confidence:.2%} for each: the "
        "rules for success and mean latency pass or fail only if the whole interval is on one side of the threshold",
        *(
            [f"- success at most {rules.margin:.1%} below the teacher's on the same rows"]
            if rules.margin is not None
            else []
        ),
        f"- no significant regression of more than {rules.regression_margin:.0%} in any part of the regression suite",
        *(["- memory of a server is not known, and not a rule there"] if config.evaluate.server is not None else []),
        "- each additional look at the same held-out test set is judged at half the error rate of the previous one",
        *(
            [
                f"- files that may ship: {', '.join(map(markdown, rules.files))}; the one with most deployable roles "
                "ships, the smallest one if there is a tie"
            ]
            if len(rules.files) > 1
            else []
        ),
        *[f"- {markdown(named(role))}: {markdown(_rule_text(rule))}" for role, rule in rules.checks.items()],
        "",
        "## What the test rows can prove",
        "",
        f"If a role's true success is {plan.power_rate:.1%}, its test rows give the verdict deploy with this chance:",
        "",
        *[f"- {markdown(named(role))}: {chance:.0%}" for role, chance in plan.power.items()],
        "",
        "## Warnings",
        "",
        *([f"- {markdown(warning.sentence())}" for warning in plan.warnings] or ["none"]),
        "",
    ]
    return "\n".join(lines)
