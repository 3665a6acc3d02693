"""The plan as a page of Markdown."""

from __future__ import annotations

from journeyman.config import Config
from journeyman.foreign import markdown, named
from journeyman.manifests import CheckRule, PlanManifest, PlannedFile, merged_name

_WAYS = {
    "keep": "weights and activations of all layers stay in memory",
    "recompute": "activations are recomputed in the backward pass, which takes 1.5 times the work",
    "stream": "like recompute, and only two layers' weights are in memory; the others stay quantized in the file",
}
_WAYS_ON_GPU = _WAYS | {
    "stream": "like recompute, and the weights stay quantized in the GPU's memory; each is dequantized when it is used"
}


def _rule_text(rule: CheckRule) -> str:
    if not rule.weights:
        return ", ".join(rule.checks)
    return (
        " + ".join(f"{weight:g} × {name}" for name, weight in rule.weights.items()) + f", at least {rule.pass_at:.0%}"
    )


def _serving_text(plan: PlanManifest) -> str:
    return "not known" if plan.estimated_serve_memory_gb is None else f"{plan.estimated_serve_memory_gb:.2f} GB"


def _served_text(one: PlannedFile) -> str:
    made = f", made of the base by {one.made_by}" if one.made_by else ""
    return f"{markdown(one.path)} ({one.size_gb:.2f} GB{made}), SHA-256 {one.sha256}"


def plan_text(plan: PlanManifest, config: Config) -> str:
    """The plan as a page of Markdown."""
    rules = plan.rules
    merged = [merged_name(kind) for kind in config.evaluate.merged]
    beside = [name for name in rules.files if name not in merged]
    lines = [
        "# Plan",
        "",
        f"- base: {markdown(plan.base_path)} ({plan.base_parameters:,} parameters), SHA-256 {plan.base_sha256}",
        *(f"- serves: {_served_text(one)}" for one in plan.served if one.path != plan.base_path),
        f"- trainable: {plan.trainable_parameters:,} parameters (rank {config.train.lora.rank})",
        f"- steps: {plan.total_steps} ({plan.steps_per_epoch} per epoch), {plan.total_tokens:,} tokens",
        f"- device: {markdown(plan.device_name or 'the processor')}",
        f"- precision: {plan.precision}; measured rate of matrix products: {plan.matrix_gflops:.0f} GFLOP/s",
        f"- estimated time: {plan.estimated_train_s:.0f} s",
        *(["- the base does not fit on one of the GPUs: each keeps a part of every layer"] if plan.sharded else []),
        f"- memory mode: {plan.memory} ({(_WAYS_ON_GPU if plan.device else _WAYS)[plan.memory]})",
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
                f"- files that may ship: {', '.join(map(markdown, beside))}; the one with most deployable roles ships, "
                "the smallest one if there is a tie"
            ]
            if len(beside) > 1
            else []
        ),
        *(
            [
                f"- merged files for `export --target gguf`, each with its own verdict: "
                f"{', '.join(map(markdown, merged))}"
            ]
            if merged
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
