"""export: the files to deploy. It refuses without a deploy verdict unless it is overridden, for good."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE, write_atomic, write_json
from journeyman.config import EvaluateConfig, RedactConfig
from journeyman.errors import NotDeployable
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    PlanManifest,
)
from journeyman.models.gguf_file import GgufFile

BASE_FILE = "base.gguf"


def export(
    plan: PlanManifest,
    dataset: DatasetManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    decision: DecisionManifest,
    adapter_folder: Path,
    config: EvaluateConfig,
    redact: RedactConfig,
    override: str | None,
    out: Path,
) -> BundleManifest:
    """Lays the bundle down.

    Args:
        redact: what the training data had replaced; serving replaces the same.
        override: why it is exported all the same; all roles are then in the bundle, and the reason too.

    Raises:
        NotDeployable: no role has the verdict "deploy", and there is no override.
    """
    roles = decision.deployed_roles
    if override is not None:
        roles = [role for role in decision.roles if role != "all"]
    if not roles:
        raise NotDeployable(
            f"the verdict is {decision.verdict!r}, and no role may be deployed",
            'See 06-decision/decision.md; to export all the same: journeyman export --override "reason"',
        )
    prompts = {role: dataset.system_prompts[role] for role in roles if role in dataset.system_prompts}
    bundle = BundleManifest(
        roles=roles,
        override=override,
        base_sha256=plan.base_sha256,
        adapter_sha256=evaluation.adapter_sha256,
        base_file=BASE_FILE,
        system_prompts=prompts,
        redact=redact.model_dump(),
        settings={
            "context": config.context,
            "max_new_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "threads": config.threads,
        },
    )
    shutil.copyfile(adapter_folder / ADAPTER_FILE, out / ADAPTER_FILE)
    _link_or_copy(Path(plan.base_path), out / BASE_FILE)
    write_json(out / "prompts.json", prompts)
    template = GgufFile(Path(plan.base_path)).metadata.get("tokenizer.chat_template")
    write_json(out / "base.json", {"sha256": plan.base_sha256, "source": plan.base_path, "chat_template": template})
    for role in roles:
        write_atomic(out / f"Modelfile.{role}", _modelfile(prompts.get(role), bundle).encode())
    write_atomic(out / "llama-server.sh", _command_line(bundle).encode())
    (out / "llama-server.sh").chmod(0o755)
    write_atomic(out / "README.md", _model_card(bundle, plan, adapter, evaluation, decision).encode())
    return bundle


def _link_or_copy(source: Path, target: Path) -> None:
    # A hard link costs no space; across file systems it is a copy.
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _modelfile(prompt: str | None, bundle: BundleManifest) -> str:
    """An Ollama Modelfile: https://docs.ollama.com/modelfile."""
    lines = [
        f"FROM ./{BASE_FILE}",
        f"ADAPTER ./{ADAPTER_FILE}",
        f"PARAMETER temperature {bundle.settings['temperature']}",
        f"PARAMETER num_ctx {bundle.settings['context']}",
        f"PARAMETER num_predict {bundle.settings['max_new_tokens']}",
    ]
    if prompt is not None:
        lines.append(
            f"SYSTEM {json.dumps(prompt, ensure_ascii=False)}" if "\n" not in prompt else f'SYSTEM """{prompt}"""'
        )
    return "\n".join(lines) + "\n"


def _command_line(bundle: BundleManifest) -> str:
    return (
        "#!/bin/sh\n# Serves the tuned model with llama.cpp's own server; send the prompts of prompts.json.\n"
        'cd "$(dirname "$0")" || exit 1\n'
        f"exec llama-server --model {BASE_FILE} --lora {ADAPTER_FILE} --ctx-size {bundle.settings['context']} "
        '--jinja --host 127.0.0.1 --port 8080 "$@"\n'
    )


def _model_card(
    bundle: BundleManifest,
    plan: PlanManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    decision: DecisionManifest,
) -> str:
    rows = []
    for role, summary in evaluation.roles.items():
        rates = [
            f"{arm.success.passed} of {arm.success.n} ({arm.success.low:.0%} to {arm.success.high:.0%})"
            if arm.success
            else "not known"
            for arm in (summary.base, summary.tuned)
        ]
        rows.append(f"| {role} | {rates[0]} | {rates[1]} | {decision.roles[role].verdict} |")
    override = [f"**Exported against the verdict.** Reason given: {bundle.override}", ""] if bundle.override else []
    return "\n".join(
        [
            "---",
            "library_name: gguf",
            "tags: [lora, journeyman]",
            "---",
            "# Model card",
            "",
            *override,
            f"Serves the roles: {', '.join(bundle.roles)}. All other roles stay with the teacher.",
            "",
            f"- base: `{Path(plan.base_path).name}`, SHA-256 `{plan.base_sha256}`; its licence applies",
            f"- adapter: LoRA, {adapter.trainable_parameters:,} parameters, SHA-256 `{evaluation.adapter_sha256}`",
            f"- trained for {adapter.steps} steps on {adapter.tokens:,} tokens; best step {adapter.best_step}",
            f"- evaluated on {evaluation.rows} sealed rows through {evaluation.engine}, the same two files",
            "",
            "| role | base | tuned | verdict |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "Serve it: `journeyman serve` in the run's folder, `sh llama-server.sh`, or for Ollama "
            "`ollama create NAME -f Modelfile.ROLE`.",
            "",
        ]
    )
