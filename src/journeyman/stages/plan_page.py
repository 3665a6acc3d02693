"""The plan as a page: sections of plain lines, which plan.md and the terminal show in their own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.config import Config, TrainConfig
from journeyman.foreign import markdown, named
from journeyman.manifests import CheckRule, PlanManifest, PlannedFile, PlannedRecipe, merged_name, set_flags
from journeyman.reasons import ReasonRecord
from journeyman.stages.plan_memory_text import nearest_lines, training_lines
from journeyman.stages.plan_power_text import power_lines
from journeyman.stages.plan_time_text import time_lines

_WAYS = {
    "keep": "weights and activations of all layers stay in memory",
    "recompute": "activations are recomputed in the backward pass, which takes 1.5 times the work",
    "stream": "like recompute, and only two layers' weights are in memory; the others stay quantized in the file",
}
_WAYS_ON_GPU = _WAYS | {
    "stream": "like recompute, and the weights stay quantized in the GPU's memory; each is dequantized when it is used"
}


@dataclass(frozen=True)
class Section:
    """A part of the page. `about`: for whom it is new; "" if the lines speak for themselves."""

    title: str
    lines: Sequence[str]
    about: str = ""


def sections_of(plan: PlanManifest, config: Config) -> list[Section]:
    """The page, in plain text: whoever shows it makes names from logs and configs harmless."""
    return [
        Section("What", list(_what(plan, config)), "What is trained, on what, and where it will answer."),
        Section("Time", list(time_lines(plan)), "How long the work takes on this machine, as busy as it is now."),
        Section("Memory", list(_memory(plan))),
        Section("Disk", list(_disk(plan)), "What the run writes from here on, at most."),
        Section(
            "Decision rules, fixed now", list(_rules(plan, config)),
            "What a role must achieve on rows that training never sees. Nothing that is seen later changes them.",
        ),
        Section(
            "Power", power_lines(plan),
            "What the held-out rows can show. With too few rows, a good model cannot be told from a bad one.",
        ),
        Section(
            "Lints", list(_lints(plan)),
            "What is wrong with settings or data. Errors prevent training. More: journeyman plan --explain CODE",
        ),
    ]  # fmt: skip


def planned_recipe(train: TrainConfig) -> PlannedRecipe:
    """What the page shows of the settings of training: the plan records it, because the config may change later."""
    return PlannedRecipe(
        adapters=train.adapters,
        preset=train.preset,
        rank=train.lora.rank,
        alpha=train.lora.alpha,
        targets=list(train.lora.targets),
        rows_per_step=train.rows_per_step,
        retention_share=train.retention.share,
        retention_max_tokens=train.retention.max_tokens,
    )


def outcome(plan: PlanManifest) -> str:
    """Go or no go."""
    return outcome_of(plan.errors)


def outcome_of(errors: Sequence[ReasonRecord]) -> str:
    """The same, of a plan's errors."""
    return f"no go: {len(errors)} error{'s' * (len(errors) > 1)}" if errors else "go"


def plan_text(plan: PlanManifest, config: Config) -> str:
    """The page as Markdown."""
    lines = ["# Plan", ""]
    for section in sections_of(plan, config):
        about = [markdown(section.about), ""] if section.about else []
        lines += [f"## {section.title}", "", *about, *(f"- {markdown(line)}" for line in section.lines), ""]
    return "\n".join([*lines, f"**{outcome(plan)}**", ""])


def _what(plan: PlanManifest, config: Config) -> Iterator[str]:
    recipe, license = plan.recipe or planned_recipe(config.train), plan.license
    if plan.teachers:
        yield "teachers in the logs: " + ", ".join(f"{named(one)} ({n:,} rows)" for one, n in plan.teachers.items())
    yield f"base: {plan.base_path} ({plan.base_parameters:,} parameters), SHA-256 {plan.base_sha256}"
    yield f"license of the base: {license}, by its own account" if license else "license of the base: not stated in it"
    for one in plan.served:
        if one.path != plan.base_path:
            yield f"serves: {_served_text(one)}"
    if plan.serving:
        yield f"served by: {plan.serving}"
    shared = "shared by all roles" if recipe.adapters == "shared" else "one for each role"
    yield (
        f"trainable: {plan.trainable_parameters:,} parameters (rank {recipe.rank}, alpha {recipe.alpha:g}, on "
        f"{', '.join(recipe.targets)}), {shared}; preset: {recipe.preset}"
    )
    yield (
        f"steps: {plan.total_steps} ({plan.steps_per_epoch} per epoch), {plan.total_tokens:,} tokens; each step learns "
        f"from up to {recipe.rows_per_step} rows, packed {plan.pack_tokens:,} tokens at a time"
    )
    if plan.general_rows:
        yield (
            f"beside them, against forgetting: {plan.general_rows:,} rows per epoch, of the base's own answers to "
            f"{plan.general_prompts:,} general prompts (train.retention.share {recipe.retention_share:g}). The base "
            f"gives them first, with at most {recipe.retention_max_tokens} tokens each; steps count them, tokens and "
            "time as if each were that long"
        )
    elif plan.recipe is not None and recipe.retention_share:
        yield "against forgetting: no general rows, because too few rows are trained or no engine here serves the base"
    for role, rows in plan.rows.items():
        yield f"rows of {named(role)}: {rows.train:,} to train, {rows.val:,} to validate, {rows.test:,} held out"


def _memory(plan: PlanManifest) -> Iterator[str]:
    serve = plan.estimated_serve_memory_gb
    yield f"memory mode: {plan.memory} ({(_WAYS_ON_GPU if plan.device else _WAYS)[plan.memory]})"
    shown = "not known" if serve is None else f"{serve:.2f} GB"
    yield from training_lines(plan)
    yield f"estimated memory to serve: {shown}"
    if plan.fitted:
        changed = ", ".join(f"{one.override()} instead of {one.instead_of}" for one in plan.fitted)
        flags = set_flags(one.override() for one in plan.fitted)
        yield f"--fit took {changed}; other commands for this run need the same: {flags}"
    yield from nearest_lines(plan)


def _disk(plan: PlanManifest) -> Iterator[str]:
    disk = plan.disk
    if disk is None:
        yield "not known"
        return
    for what, size in disk.needs.items():
        if size:
            yield f"{what}: {size / 1e9:.2f} GB"
    yield f"in all: {sum(disk.needs.values()) / 1e9:.2f} GB; free: {disk.free / 1e9:.1f} GB"
    there = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in disk.there.items())
    yield f"weights that are there already: {there or 'none'}"


def _rules(plan: PlanManifest, config: Config) -> Iterator[str]:
    rules = plan.rules
    merged = [merged_name(kind) for kind in config.evaluate.merged]
    beside = [name for name in rules.files if name not in merged]
    yield (
        f"deploy: success at least {rules.min_success:.1%}, mean latency below {rules.max_mean_latency_s:g} s, memory "
        f"at most {rules.max_memory_gb:g} GB"
    )
    stretch_s = rules.stretch_mean_latency_s
    yield f"stretch: success at least {rules.stretch_success:.1%}, mean latency below {stretch_s:g} s"
    yield (
        f"intervals at {rules.confidence:.0%} confidence over all roles, {rules.role_confidence:.2%} for each: the "
        "rules for success and mean latency pass or fail only if the whole interval is on one side of the threshold"
    )
    if rules.margin is not None:
        yield f"success at most {rules.margin:.1%} below the teacher's on the same rows"
    yield f"no significant regression of more than {rules.regression_margin:.0%} in any part of the regression suite"
    if config.evaluate.server is not None:
        yield "memory of a server is not known, and not a rule there"
    yield "each additional look at the same held-out test set is judged at half the error rate of the previous one"
    if len(beside) > 1:
        tie = "the one with most deployable roles ships, the smallest one if there is a tie"
        yield f"files that may ship: {', '.join(beside)}; {tie}"
    if merged:
        yield f"merged files for export --target gguf, each with its own verdict: {', '.join(merged)}"
    for role, rule in rules.checks.items():
        yield f"{named(role)}: {_rule_text(rule)}"


def _rule_text(rule: CheckRule) -> str:
    if not rule.weights:
        return ", ".join(rule.checks)
    weighted = " + ".join(f"{weight:g} × {name}" for name, weight in rule.weights.items())
    return f"{weighted}, at least {rule.pass_at:.0%}"


def _served_text(one: PlannedFile) -> str:
    made = f", made of the base by {one.made_by}" if one.made_by else ""
    return f"{Path(one.path)} ({one.size_gb:.2f} GB{made}), SHA-256 {one.sha256}"


def _lints(plan: PlanManifest) -> Iterator[str]:
    yield from lint_lines(plan.errors, plan.warnings)
    if not plan.errors and not plan.warnings:
        yield "none"


def lint_lines(errors: Sequence[ReasonRecord], warnings: Sequence[ReasonRecord]) -> Iterator[str]:
    """A line for each code, errors first."""
    for level, records in (("error", errors), ("warning", warnings)):
        by_code: dict[str, list[ReasonRecord]] = {}
        for one in records:
            by_code.setdefault(one.code, []).append(one)
        yield from (f"{level} {lint_text(*alike)}" for alike in by_code.values())


def lint_text(*alike: ReasonRecord) -> str:
    """The code of one or several reasons, their sentences with the figures, and what to do."""
    fixes = ". ".join(dict.fromkeys(fix for one in alike if (fix := one.what_to_do())))
    said = "; ".join(one.sentence() for one in alike)
    return f"{alike[0].code}: {said}" + (f". {fixes}" if fixes else "")
